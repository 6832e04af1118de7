"""Where volumes lie when Flyte's own raw data lies in one.

Always true: a `vol://` URL is never taken for a store.
"""

from __future__ import annotations

from volume_core import InvalidNameError
from volume_core.facade.addresses import parse, strip


def store_in(url: str) -> str | None:
    """Return the URL of the store that the `vol://` URL *url* names; None if that is the default one, or it is none."""
    try:
        return parse(strip(url)).store
    except InvalidNameError:
        return None
