"""Which SDKs this process has imported: only one of these can be running a task in it.

Always true: no SDK is imported here.
"""

from __future__ import annotations

import sys


def has_flyte_2() -> bool:
    """Whether flyte 2 is imported: whole, and no package of a program's own that is called like it."""
    return hasattr(sys.modules.get("flyte"), "ctx")
