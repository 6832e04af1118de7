"""What this package itself answers to its hooks: a plugin like any other, asked last."""

from __future__ import annotations

import os
from collections.abc import Mapping

from volume_core.parts.state import State
from volume_core.plugins.hookspecs import hookimpl
from volume_core.storage.opening import BUILTIN_SCHEMES, open_store
from volume_core.storage.protocol import Store

BUCKET_VARIABLE = "VOLUME_BUCKET"


@hookimpl(trylast=True)
def volume_default_bucket() -> str:
    """`$VOLUME_BUCKET`, else the store of this machine's state directory."""
    return os.environ.get(BUCKET_VARIABLE) or State.default().default_store_url


@hookimpl(trylast=True)
def volume_open_store(url: str, options: Mapping[str, str]) -> Store | None:
    """The schemes that storage/ knows."""
    return open_store(url, options) if url.partition("://")[0] in BUILTIN_SCHEMES else None
