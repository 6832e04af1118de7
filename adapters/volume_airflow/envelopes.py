"""Volumes in XComs: what Airflow may read back, and what it never writes.

    {"__classname__": "volume_core.volumes.ROVolume", "__version__": 1, "__data__": {the record}}

Airflow reads only classes on its list, so that nobody who can write to its database can have any code run.

Always true: an XCom holds no writer: where the listener could not put a version in its place, it is committed when it
is serialized, or that fails; whichever class an envelope names, what is read back is a version; to say all this loads
neither class.
"""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

log = logging.getLogger(__name__)

_MODULE = "volume_core.volumes"
_RO, _RW = f"{_MODULE}.ROVolume", f"{_MODULE}.RWVolume"
_PYDANTIC = "pydantic.main.BaseModel"


def allow() -> None:
    """Let this process read volumes from XComs, and write no writers."""
    try:
        from airflow.sdk import serde
    except ImportError:
        from airflow.serialization import serde  # type: ignore[attr-defined,no-redef]

    _allow(serde)
    _never_write_writers(serde)


def _allow(serde: Any) -> None:
    allowed = getattr(serde, "_extra_allowed", None)
    if isinstance(allowed, set):  # what allow_class adds to, for who has the classes
        allowed.update((_RO, _RW))
    else:
        from volume_core import ROVolume, RWVolume

        serde.allow_class(ROVolume)
        serde.allow_class(RWVolume)


def _never_write_writers(serde: Any) -> None:
    writes, reads = getattr(serde, "_serializers", {}), getattr(serde, "_deserializers", {})
    if isinstance(inner := writes.get(_PYDANTIC), _Serializer):
        return
    reads[_RW] = SimpleNamespace(deserialize=_read)
    if inner is not None:
        writes[_PYDANTIC] = _Serializer(inner)
    else:  # 2.11 and 3.0 have none for models; they ask by the name of the class
        reads[_RO] = reads[_RW]
        writes[_RO] = writes[_RW] = SimpleNamespace(serialize=_write)


class _Serializer:
    """Airflow's own for pydantic models, but for writers."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def serialize(self, value: Any) -> Any:
        """Return what Airflow does; of a writer what is made of the version that it is committed as."""
        if _is_writer(value):
            from volume_core.passing import hand_over

            value = hand_over(value)
        return self._inner.serialize(value)


def _write(value: Any) -> tuple[dict[str, Any], str, int, bool]:
    """Return what Airflow asks of a serializer: the data, the class it is read back as, its version, that it could."""
    from volume_core.passing import hand_over

    return hand_over(value).model_dump(mode="json"), _RO, 1, True


def _is_writer(value: Any) -> bool:
    module = sys.modules.get(_MODULE)
    return module is not None and isinstance(value, module.RWVolume)


def _read(*given: Any) -> Any:
    from volume_core import ROVolume

    return ROVolume.model_validate(given[-1])
