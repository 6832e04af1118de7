"""From connections of Airflow to the environment variables that stores are opened with.

    volume                  the store: its URL, and who we are there, by itself or by naming one of these
    aws                     s3://            keys, profile or an assumed role; region_name, endpoint_url
    google_cloud_platform   gs://            a service account, as a file or as its JSON
    wasb                    az://, abfs://   a connection string, or an account with its key, a SAS token or a principal

Why the environment: the mount server is a process of its own and opens the store anew.  Why `VOLUME_S3_*`: a task's own
S3 clients, which read `AWS_*`, shall not be sent to where volumes lie.

Always true: nothing here logs, prints or stores a secret; nothing is asked of anybody, for a connection comes with what
it refers to; a connection that says nothing of a credential says nothing of its variable either, so what the machine
has by itself (roles, metadata servers) counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from volume_core import VolumeError

Variables = dict[str, str | None]
"""What to set, and (None) what to take out of the environment because it would go before what is set."""

_AZURE_HOST = re.compile(r"(?P<account>[a-z0-9]+)\.(?P<kind>blob|dfs)\.core\.windows\.net")


class Kind(NamedTuple):
    """A type of connection that says who we are: in which field it is named, for which stores, and its variables.

    `types` are the connection's types; `variables` takes the connection and its extra.
    """

    field: str
    schemes: tuple[str, ...]
    types: tuple[str, ...]
    variables: Callable[[Any, Mapping[str, Any]], Variables]


def extra_of(connection: Any) -> dict[str, Any]:
    """Return the extra of *connection*; VolumeError where it is not the JSON of an object."""
    try:
        found = json.loads(connection.extra) if connection.extra else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise VolumeError(f"the extra of the connection {connection.conn_id!r} is not a JSON object")
    return {key: value for key, value in found.items() if value is not None and value != ""}


def reference_of(connection: Any, scheme: str) -> str | None:
    """Return the id of the connection that *connection*, of a store with *scheme*, says we are; None if none is named.

    Raises VolumeError where it names one for other stores, or has keys of its own as well.
    """
    extra = extra_of(connection)
    named = [kind for kind in KINDS if extra.get(kind.field)]
    for kind in named:
        if scheme not in kind.schemes:
            raise VolumeError(
                f"the connection {connection.conn_id!r} has {kind.field}, which is for {', '.join(kind.schemes)}://, "
                f"and its store is one of {scheme}://"
            )
        if connection.login or connection.password:
            raise VolumeError(
                f"the connection {connection.conn_id!r} has keys of its own and {kind.field}: leave one of them out"
            )
    return str(extra[named[0].field]) if named else None


def variables_of(connection: Any, scheme: str, referenced: Any = None) -> Variables:
    """Return the variables for the store of *connection*, whose URL has *scheme*.

    *referenced* is the connection that it refers to, if it does.  Raises VolumeError where they cannot be used.
    """
    extra = extra_of(connection)
    found = _referenced(referenced, scheme) if referenced is not None else _own(connection, extra, scheme)
    if scheme == "s3":
        found |= _where(extra)
    elif extra.get("endpoint_url"):
        raise VolumeError(f"the connection {connection.conn_id!r} has endpoint_url, which is for s3://")
    if extra.get("cache_size"):
        found["VOLUME_CACHE_LIMIT"] = str(extra["cache_size"])
    return found


def _own(connection: Any, extra: Mapping[str, Any], scheme: str) -> Variables:
    """What the connection's own login and password come to."""
    login, password = connection.login or "", connection.password or ""
    if not login and not password:
        return {}
    if scheme == "s3":
        return _keys(*_pair(connection, login, password), extra.get("session_token"))
    if scheme in {"az", "abfs"}:
        account, key = _pair(connection, login, password)
        return {
            "AZURE_STORAGE_CONNECTION_STRING": None,
            "AZURE_STORAGE_ACCOUNT_NAME": account,
            "AZURE_STORAGE_ACCOUNT_KEY": key,
        }
    how = "name a connection in google_cloud_conn_id" if scheme == "gs" else "leave login and password empty"
    raise VolumeError(f"the connection {connection.conn_id!r} has a login, which a store of {scheme}:// has not: {how}")


def _pair(connection: Any, login: str, password: str) -> tuple[str, str]:
    if not login or not password:
        lacking = "login" if not login else "password"
        raise VolumeError(
            f"the connection {connection.conn_id!r} has no {lacking}: keys are two, or leave both empty for the "
            "machine's own credentials"
        )
    return login, password


def _referenced(connection: Any, scheme: str) -> Variables:
    kind = next(each for each in KINDS if scheme in each.schemes)
    if connection.conn_type and connection.conn_type not in kind.types:
        raise VolumeError(
            f"{kind.field} names {connection.conn_id!r}, a connection of type {connection.conn_type!r}: for a store of "
            f"{scheme}:// it is one of type {kind.types[0]!r}"
        )
    return kind.variables(connection, extra_of(connection))


def _keys(key: str, secret: str, token: str | None) -> Variables:
    return {
        "VOLUME_S3_ACCESS_KEY_ID": key,
        "VOLUME_S3_SECRET_ACCESS_KEY": secret,
        "VOLUME_S3_SESSION_TOKEN": token or None,
    }


def _where(extra: Mapping[str, Any]) -> Variables:
    services = extra.get("service_config")
    service = services.get("s3") if isinstance(services, Mapping) else None
    endpoint = (service.get("endpoint_url") if isinstance(service, Mapping) else None) or extra.get("endpoint_url")
    region = extra.get("region") or extra.get("region_name")
    found = {"VOLUME_S3_REGION": region, "VOLUME_S3_ENDPOINT": endpoint}
    return {name: str(value) for name, value in found.items() if value}


def _aws(connection: Any, extra: Mapping[str, Any]) -> Variables:
    where = _where(extra)
    if extra.get("role_arn"):
        return _keys(*_assumed(connection.conn_id)) | where
    key = connection.login or extra.get("aws_access_key_id")
    secret = connection.password or extra.get("aws_secret_access_key")
    if key and secret:
        return _keys(str(key), str(secret), extra.get("aws_session_token")) | where
    if profile := extra.get("profile_name"):
        # Keys in the environment would go before the profile, and the library renews what a profile gives.
        nobody = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
        return {**dict.fromkeys(nobody), **_keys_of_nobody(), "AWS_PROFILE": str(profile)} | where
    return where


def _keys_of_nobody() -> Variables:
    return {"VOLUME_S3_ACCESS_KEY_ID": None, "VOLUME_S3_SECRET_ACCESS_KEY": None, "VOLUME_S3_SESSION_TOKEN": None}


def _assumed(conn_id: str) -> tuple[str, str, str | None]:
    """Return the keys of the role that the connection assumes, which its own provider knows how to ask for."""
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import (  # type: ignore[import-not-found,unused-ignore]
            AwsBaseHook,
        )
    except ImportError:
        raise VolumeError(
            f"the connection {conn_id!r} assumes a role, which takes the provider: "
            "pip install apache-airflow-providers-amazon"
        ) from None
    frozen = AwsBaseHook(aws_conn_id=conn_id, client_type="s3").get_credentials()
    return frozen.access_key, frozen.secret_key, frozen.token


def _google(connection: Any, extra: Mapping[str, Any]) -> Variables:
    said = {key.removeprefix("extra__google_cloud_platform__"): value for key, value in extra.items()}
    if info := said.get("keyfile_dict"):
        text = info if isinstance(info, str) else json.dumps(info)
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": text, "GOOGLE_APPLICATION_CREDENTIALS": None}
    if file := said.get("key_path"):
        return {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "GOOGLE_SERVICE_ACCOUNT_KEY": None}
    for name in ("key_secret_name", "credential_config_file", "impersonation_chain"):
        if said.get(name):
            raise VolumeError(
                f"the connection {connection.conn_id!r} says who it is by {name}, which stores do not know: give "
                "key_path or keyfile_dict, or nothing for the machine's own credentials"
            )
    return {}


def _azure(connection: Any, extra: Mapping[str, Any]) -> Variables:
    said = {key.removeprefix("extra__wasb__"): value for key, value in extra.items()}
    if text := said.get("connection_string"):
        return {"AZURE_STORAGE_CONNECTION_STRING": str(text)}
    # A connection string in the environment would go before the account.
    found: Variables = {"AZURE_STORAGE_CONNECTION_STRING": None}
    found |= _account(connection, bool(said.get("tenant_id")))
    if tenant := said.get("tenant_id"):
        principal = {"TENANT_ID": tenant, "CLIENT_ID": connection.login, "CLIENT_SECRET": connection.password}
        return found | {f"AZURE_STORAGE_{name}": str(value) for name, value in principal.items() if value}
    if token := said.get("sas_token"):
        return found | {"AZURE_STORAGE_SAS_TOKEN": str(token)}
    if connection.password:
        found["AZURE_STORAGE_ACCOUNT_KEY"] = connection.password
    return found if len(found) > 1 else {}


def _account(connection: Any, is_principal: bool) -> Variables:
    """The account's name: of its URL, else the login, which is the principal's where there is one."""
    host = connection.host or ""
    name = urlsplit(host if "://" in host else f"//{host}").hostname or ""
    if match := _AZURE_HOST.fullmatch(name):
        return {"AZURE_STORAGE_ACCOUNT_NAME": match["account"]}
    if "." in name:
        url = host if "://" in host else f"https://{host}"
        return {"AZURE_STORAGE_ACCOUNT_NAME": name.partition(".")[0], "AZURE_STORAGE_ENDPOINT": url}
    account = name or ("" if is_principal else connection.login or "")
    return {"AZURE_STORAGE_ACCOUNT_NAME": account} if account else {}


KINDS = (
    Kind("aws_conn_id", ("s3",), ("aws", "s3"), _aws),
    Kind("google_cloud_conn_id", ("gs",), ("google_cloud_platform", "gcp"), _google),
    Kind("wasb_conn_id", ("az", "abfs"), ("wasb", "azure"), _azure),
)
