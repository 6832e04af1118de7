"""Who we are to Amazon S3: keys from the environment, or whatever botocore finds, always fresh.

botocore knows profiles, SSO, roles for service accounts, containers and instances; the library that
talks to S3 knows a few of them.  So botocore answers, whenever the library asks again.

Before all that go VOLUME_S3_*: where volumes lie in another S3 than the one that the rest of a program talks to.

Always true: a secret goes from here to the signer and nowhere else; no message or repr holds one;
botocore, which takes a tenth of a second to load, is loaded only when the environment does not suffice.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from volume_core.errors import StorageError

if TYPE_CHECKING:
    from obstore.store import S3Credential

# botocore renews what expires when 10 to 15 minutes are left, so what it hands out is good for this long.
_GOOD_FOR = timedelta(minutes=5)
DEFAULT_REGION = "us-east-1"
OWN_ENDPOINT = "VOLUME_S3_ENDPOINT"
OWN_REGION = "VOLUME_S3_REGION"
OWN_KEYS = ("VOLUME_S3_ACCESS_KEY_ID", "VOLUME_S3_SECRET_ACCESS_KEY")
_OWN_TOKEN = "VOLUME_S3_SESSION_TOKEN"
_AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_HOW = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE to a profile that `aws sts get-caller-identity` "
    "accepts, or run where a role is attached; for a public bucket set AWS_SKIP_SIGNATURE=true"
)


class AwsCredentials:
    """What the S3 library calls for keys, and where region and endpoint come from.

    `problem` is the error of the last call that found no keys, None after one that did.
    """

    def __init__(self, profile: str | None = None) -> None:
        self.problem: StorageError | None = None
        self._profile = profile
        self._session: Any = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"AwsCredentials({self._profile!r})"

    def __call__(self) -> S3Credential:
        """Return the keys of this moment and until when to use them; raises StorageError."""
        try:
            found = self._keys()
        except StorageError as error:
            self.problem = error
            raise
        self.problem = None
        return found

    def region(self) -> str:
        """The region of VOLUME_S3_REGION, AWS_REGION, AWS_DEFAULT_REGION or the profile, else us-east-1."""
        names = (OWN_REGION, "AWS_REGION", "AWS_DEFAULT_REGION")
        named = next(filter(None, map(os.environ.get, names)), None)
        if named or self._named_keys():
            return named or DEFAULT_REGION
        return str(self._configured("region") or DEFAULT_REGION)

    def endpoint(self) -> str | None:
        """The endpoint of VOLUME_S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile, or None for
        Amazon's own.
        """
        names = (OWN_ENDPOINT, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        named = next(filter(None, map(os.environ.get, names)), None)
        if named or self._named_keys():
            return named
        return self._profile_endpoint()

    def _named_keys(self) -> tuple[str, str] | None:
        """The two variables of the environment that hold the keys, if any do."""
        if self._profile is not None:
            # As in botocore: keys in the environment go before AWS_PROFILE, not before a profile that was asked for.
            return None
        return next((names for names in (OWN_KEYS, _AWS_KEYS) if all(map(os.environ.get, names))), None)

    def _keys(self) -> S3Credential:
        if names := self._named_keys():
            key, secret = names
            token = os.environ.get("AWS_SESSION_TOKEN" if names == _AWS_KEYS else _OWN_TOKEN)
            return _credential(os.environ[key], os.environ[secret], token or None)
        from botocore import exceptions

        passing = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.MetadataRetrievalError)
        try:
            credentials = self._session_of_profile().get_credentials()
            frozen = credentials.get_frozen_credentials() if credentials else None
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise StorageError(
                f"the AWS credentials could not be fetched: {error}; {_HOW}", transient=isinstance(error, passing)
            ) from error
        if frozen is None or not frozen.access_key:
            raise StorageError(f"no AWS credentials were found; {_HOW}")
        return _credential(frozen.access_key, frozen.secret_key, frozen.token)

    def _profile_endpoint(self) -> str | None:
        from botocore import exceptions

        session = self._session_of_profile()
        try:
            settings: Mapping[str, Any] = session.get_scoped_config()
            services = session.full_config.get("services", {}).get(settings.get("services"), {})
        except exceptions.BotoCoreError as error:
            raise _unusable(error) from error
        service = services.get("s3", {})
        found = service.get("endpoint_url") if isinstance(service, dict) else None
        return found or settings.get("endpoint_url")

    def _configured(self, what: str) -> Any:
        from botocore import exceptions

        try:
            return self._session_of_profile().get_config_variable(what)
        except exceptions.BotoCoreError as error:
            raise _unusable(error) from error

    def _session_of_profile(self) -> Any:
        with self._lock:
            if self._session is None:
                self._session = self._new_session()
            return self._session

    def _new_session(self) -> Any:
        from botocore import exceptions
        from botocore.session import Session

        try:
            session = Session(profile=self._profile)
            session.get_scoped_config()  # a profile that does not exist is said here
        except exceptions.BotoCoreError as error:
            raise _unusable(error) from error
        return session


def _unusable(error: Exception) -> StorageError:
    return StorageError(f"the AWS configuration cannot be used: {error}; {_HOW}")


def _credential(access_key: str, secret_key: str, token: str | None) -> S3Credential:
    return {
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "token": token,
        "expires_at": datetime.now(UTC) + _GOOD_FOR,
    }
