"""From a saved credentials block to the environment variables that stores are opened with.

    aws-credentials                  s3://        keys, profile or an assumed role; region; endpoint_url of the client
    minio-credentials                s3://        keys; region; endpoint_url of the client
    gcp-credentials                  gs://        a service account, as a file or as its JSON
    azure-blob-storage-credentials   az://, abfs://   a connection string, or an account with a service principal

Why the environment: the mount server is a process of its own and opens the store anew.  Why the block's document and
not the block: its class comes with a package (prefect-aws, prefect-gcp, prefect-azure) that a machine which only
reads the store need not have.

Always true: nothing here logs, prints or stores a secret; a block that says nothing of a credential says nothing of
its variable either, so what the machine has by itself (roles, metadata servers) counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from volume_core import VolumeError

Variables = Mapping[str, str | None]
"""What to set, and (None) what to take out of the environment because it would go before what is set."""

_AZURE_HOST = re.compile(r"(?P<account>[a-z0-9]+)\.(?P<kind>blob|dfs)\.core\.windows\.net")


class Kind(NamedTuple):
    """The stores that a type of block is for, and how its document becomes variables.

    `variables` takes the reference (`type/name`) and the document's data, secrets and all.
    """

    schemes: tuple[str, ...]
    variables: Callable[[str, Mapping[str, Any]], Variables]


def variables_of(reference: str, data: Mapping[str, Any]) -> Variables:
    """Return the variables for the credentials block *reference* (`type/name`), whose document is *data*."""
    return kind_of(reference).variables(reference, data)


def kind_of(reference: str) -> Kind:
    """Return what the type of *reference* is for; VolumeError says which types there are."""
    found = KINDS.get(reference.partition("/")[0])
    if found is None:
        raise VolumeError(f"{reference!r} is no credentials block that stores know; there are {', '.join(KINDS)}")
    return found


def _aws(reference: str, data: Mapping[str, Any]) -> Variables:
    if data.get("assume_role_arn"):
        return _keys(*_assumed(reference)) | _where(data)
    key, secret = data.get("aws_access_key_id"), data.get("aws_secret_access_key")
    if key and secret:
        return _keys(key, secret, data.get("aws_session_token")) | _where(data)
    if profile := data.get("profile_name"):
        # Keys in the environment would go before the profile.
        nobody = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None, "AWS_SESSION_TOKEN": None}
        return {**nobody, "AWS_PROFILE": profile} | _where(data)
    return _where(data)


def _minio(reference: str, data: Mapping[str, Any]) -> Variables:
    where = _where(data)
    if "AWS_ENDPOINT_URL_S3" not in where:
        raise VolumeError(
            f"{reference} says no endpoint, and MinIO is nowhere by itself: set endpoint_url in its client parameters"
        )
    return _keys(data["minio_root_user"], data["minio_root_password"], None) | where


def _keys(key: str, secret: str, token: str | None) -> dict[str, str | None]:
    return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token or None}


def _where(data: Mapping[str, Any]) -> dict[str, str | None]:
    endpoint = (data.get("aws_client_parameters") or {}).get("endpoint_url")
    found = {"AWS_REGION": data.get("region_name"), "AWS_ENDPOINT_URL_S3": endpoint}
    return {name: value for name, value in found.items() if value}


def _assumed(reference: str) -> tuple[str, str, str | None]:
    """Return the keys of the role that the block assumes, which its own package knows how to ask for."""
    try:
        from prefect_aws import AwsCredentials
    except ImportError:
        raise VolumeError(f"{reference} assumes a role, which takes prefect-aws: pip install prefect-aws") from None
    block: Any = AwsCredentials.load(reference.partition("/")[2], _sync=True)  # type: ignore[call-arg]
    frozen = block.get_boto3_session().get_credentials().get_frozen_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def _google(_reference: str, data: Mapping[str, Any]) -> Variables:
    if info := data.get("service_account_info"):
        text = info if isinstance(info, str) else json.dumps(info)
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": text, "GOOGLE_APPLICATION_CREDENTIALS": None}
    if file := data.get("service_account_file"):
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "GOOGLE_SERVICE_ACCOUNT_KEY": None}
    return {}


def _azure(_reference: str, data: Mapping[str, Any]) -> Variables:
    if text := data.get("connection_string"):
        return {"AZURE_STORAGE_CONNECTION_STRING": text}
    # A connection string in the environment would go before the account.
    found: dict[str, str | None] = {"AZURE_STORAGE_CONNECTION_STRING": None}
    parts = urlsplit(data.get("account_url") or "")
    if match := _AZURE_HOST.fullmatch(parts.hostname or ""):
        found["AZURE_STORAGE_ACCOUNT_NAME"] = match["account"]
    elif parts.hostname:
        found["AZURE_STORAGE_ACCOUNT_NAME"] = parts.hostname.partition(".")[0]
        found["AZURE_STORAGE_ENDPOINT"] = data["account_url"]
    for name in ("tenant_id", "client_id", "client_secret"):
        if value := data.get(name):
            found[f"AZURE_STORAGE_{name.upper()}"] = value
    return found


KINDS = {
    "aws-credentials": Kind(("s3",), _aws),
    "minio-credentials": Kind(("s3",), _minio),
    "gcp-credentials": Kind(("gs",), _google),
    "azure-blob-storage-credentials": Kind(("az", "abfs"), _azure),
}
