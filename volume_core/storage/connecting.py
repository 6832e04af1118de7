"""From a remote store's URL, options and the environment to a client of the object_store library.

    what        S3                                   Google                    Azure
    ----------  -----------------------------------  ------------------------  ------------------------------
    who         botocore, see credentials.py         application default       AZURE_STORAGE_* or a connection
                                                     credentials               string, managed identity, ...
    endpoint    VOLUME_S3_ENDPOINT,                  STORAGE_EMULATOR_HOST     AZURE_STORAGE_ENDPOINT,
                AWS_ENDPOINT_URL_S3,                                           AZURE_STORAGE_USE_EMULATOR
                AWS_ENDPOINT_URL, the profile
    region      VOLUME_S3_REGION, AWS_REGION,        none                      none
                AWS_DEFAULT_REGION, the profile

An option goes before the environment.  An endpoint that begins with http:// is spoken to in the clear.

Always true: the library itself never retries (retrying.py is the only place that does), and nothing
is sent before the first call.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from volume_core.errors import InvalidNameError, StorageError
from volume_core.storage.credentials import AwsCredentials

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

OPTIONS = frozenset({"region", "endpoint", "profile", "anonymous", "account"})
# Connecting takes milliseconds or never happens.  A read that gets no byte for this long is dead; a
# write gets no byte before all of its own are sent, and a pack over a slow line may take minutes.
_CONNECT = {"connect_timeout": timedelta(seconds=10)}
_READ = _CONNECT | {"timeout": timedelta(minutes=10), "read_timeout": timedelta(seconds=30)}
_WRITE = _CONNECT | {"timeout": timedelta(minutes=10)}
_TRUE = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Connection:
    """Two clients of one bucket, which differ in how long they wait, and what is known about the server.

    `standard` is True at the provider's own address, whose promises need no probing.
    `aws` is who we are, where that is asked of botocore.
    """

    reads: Client
    writes: Client
    where: str
    standard: bool
    aws: AwsCredentials | None = None


def connect(url: str, options: Mapping[str, str]) -> Connection:
    """Return the clients of the normalized *url*.  Raises InvalidNameError for an option it does not know."""
    if unknown := sorted(set(options) - OPTIONS):
        raise InvalidNameError(f"{url}: unknown store option {unknown[0]!r}; there are {', '.join(sorted(OPTIONS))}")
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    open_ = {"s3": _s3, "gs": _google, "az": _azure, "abfs": _azure}[scheme]
    return open_(bucket, prefix, options)


def _s3(bucket: str, prefix: str, options: Mapping[str, str]) -> Connection:
    from obstore.store import S3Store

    aws = AwsCredentials(options.get("profile"))
    endpoint = options.get("endpoint") or aws.endpoint()
    # Objects are deleted one by one: the call that deletes many is missing from many servers.
    config: dict[str, Any] = {"region": options.get("region") or aws.region(), "disable_bulk_delete": True}
    if endpoint:
        config["aws_endpoint_url_s3"] = endpoint
    anonymous = _flag(options, "anonymous", "AWS_SKIP_SIGNATURE")
    config |= {"skip_signature": True} if anonymous else {}
    client = partial(S3Store, bucket, config=cast("Any", config), credential_provider=None if anonymous else aws)
    return Connection(
        reads=client(**_common(prefix, endpoint, _READ)),
        writes=client(**_common(prefix, endpoint, _WRITE)),
        where=f"region {config['region']}, endpoint {_public(endpoint) or 'of Amazon'}",
        standard=endpoint is None,
        aws=None if anonymous else aws,
    )


def _google(bucket: str, prefix: str, options: Mapping[str, str]) -> Connection:
    from obstore.store import GCSStore

    endpoint = options.get("endpoint") or os.environ.get("STORAGE_EMULATOR_HOST")
    config: dict[str, Any] = {}
    if endpoint:
        endpoint = endpoint if "://" in endpoint else f"http://{endpoint}"
        config["base_url"] = endpoint
    if _flag(options, "anonymous", "GOOGLE_SKIP_SIGNATURE"):
        config["skip_signature"] = True
    elif (endpoint or "").startswith("http://"):
        # An emulator knows nobody, and a real token must not go over the line in the clear.
        config["bearer_token"] = "emulator"
    client = partial(GCSStore, bucket, config=cast("Any", config))
    return Connection(
        reads=client(**_common(prefix, endpoint, _READ)),
        writes=client(**_common(prefix, endpoint, _WRITE)),
        where=f"endpoint {_public(endpoint) or 'of Google'}",
        standard=endpoint is None,
    )


def _azure(bucket: str, prefix: str, options: Mapping[str, str]) -> Connection:
    from obstore.store import AzureStore

    container, _, host = bucket.partition("@")
    config = _azure_config(container, host, options)
    endpoint = config.get("endpoint")
    # An emulator is at an http:// address of its own unless one is named.
    in_the_clear = endpoint or ("http://127.0.0.1" if config.get("use_emulator") else None)
    client = partial(AzureStore, container, config=cast("Any", config))
    return Connection(
        reads=client(**_common(prefix, in_the_clear, _READ)),
        writes=client(**_common(prefix, in_the_clear, _WRITE)),
        where=f"account {config.get('account_name', 'of the emulator')}, endpoint {_public(endpoint) or 'of Azure'}",
        standard=in_the_clear is None,
    )


def _azure_config(container: str, host: str, options: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = _connection_string(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in _TRUE:
        config["use_emulator"] = True
    named, _, domain = host.partition(".dfs.")
    account = (
        named
        or options.get("account")
        or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        or os.environ.get("AZURE_STORAGE_ACCOUNT")
    )
    if account:
        config["account_name"] = account
    if domain and domain != "core.windows.net":
        config["endpoint"] = f"https://{account}.blob.{domain}"
    endpoint = options.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    if endpoint:
        config["endpoint"] = endpoint
    if _flag(options, "anonymous", "AZURE_SKIP_SIGNATURE"):
        config["skip_signature"] = True
    if "account_name" not in config and "use_emulator" not in config:
        raise StorageError(
            f"az://{container}: no storage account is named; set AZURE_STORAGE_ACCOUNT_NAME, "
            f"or write abfs://{container}@<account>.dfs.core.windows.net/..."
        )
    return config


def _connection_string(text: str) -> dict[str, Any]:
    """Return what `AccountName=...;AccountKey=...;BlobEndpoint=...` says, in the library's words."""
    words = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "SharedAccessSignature": "sas_key",
        "BlobEndpoint": "endpoint",
    }
    found = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    return {word: found[key] for key, word in words.items() if key in found}


def _common(prefix: str, endpoint: str | None, waits: dict[str, timedelta]) -> dict[str, Any]:
    return {
        "prefix": prefix or None,
        "retry_config": {"max_retries": 0},
        "client_options": {
            "allow_http": (endpoint or "").startswith("http://"),
            "user_agent": "volume-core",
            **waits,
        },
    }


def _public(endpoint: str | None) -> str:
    """Return *endpoint* without what may be secret in it: a user's name and password, a query."""
    return re.sub(r"//[^/@]*@", "//", (endpoint or "").split("?", 1)[0])


def _flag(options: Mapping[str, str], option: str, variable: str) -> bool:
    return (options.get(option) or os.environ.get(variable, "")).lower() in _TRUE
