"""From where Flyte keeps a run's raw data to the store that its volumes lie in.

    s3://bucket/raw/xy/f1234-n0-0      s3://bucket/volumes/<project>/<domain>: each attempt has another prefix, and
                                       volumes are there for all
    abfs://container/...               az://container/volumes/...: Flyte leaves the account to the environment
    vol://...                          the store of that volume
    a directory, memory://             none: it goes with the run, or with the process

Always true: a `vol://` URL is never taken for a store.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from volume_core import InvalidNameError
from volume_core.facade.addresses import PROTOCOL, parse, strip

VOLUMES = "volumes"
_GO_WITH_THE_RUN = ("", "file", "memory")
_AZURE = ("abfs", "abfss")


def store_beside(raw_data: str, project: str | None, domain: str | None) -> str | None:
    """Return the URL of the store for volumes of a run whose raw data lies at *raw_data*; None for the default one."""
    parts = urlsplit(raw_data)
    if parts.scheme == PROTOCOL:
        return _store_of_volume(raw_data)
    if parts.scheme in _GO_WITH_THE_RUN or not parts.netloc:
        return None
    scheme = "az" if parts.scheme in _AZURE and "@" not in parts.netloc else parts.scheme
    return "/".join(filter(None, (f"{scheme}://{parts.netloc}", VOLUMES, project, domain)))


def _store_of_volume(url: str) -> str | None:
    try:
        return parse(strip(url)).store
    except InvalidNameError:
        return None
