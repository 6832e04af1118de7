"""`VolumeHash`, of the SDK that is imported.

Always true: flytekit's is taken by both SDKs, so it is the one where both are imported, or neither is.
"""

from __future__ import annotations

import sys
from typing import Any

VolumeHash: Any
if "flyte" in sys.modules and "flytekit" not in sys.modules:
    from volume_flyte.v2.caching import VolumeHash
else:
    from volume_flyte.v1.caching import VolumeHash

__all__ = ["VolumeHash"]
