"""What a store promises is tried out once, by its first writer, and written into its format.json.

Why: some S3 servers answer 200 to a conditional PUT and overwrite all the same, or to a range request
and send the whole object.  Nothing in a request shows that, and the first lost commit would.

Always true:
  1. A store without format.json was never written to by anybody who kept to this package.
  2. A store whose ranges or listings are wrong gets no format.json: nothing is ever written to it.
     One that only ignores conditions gets one that says so: its swaps are refused.
  3. What the probe wrote under `probes/` is removed again; what a killed probe left there is harmless.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

from volume_core.errors import ConflictError, NotFoundError, StorageError, VolumeError
from volume_core.format.names import FORMAT_NAME
from volume_core.format.storeinfo import StoreFormat
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import retried

PROBES = "probes/"
_FIRST = bytes(range(256)) * 8
_OTHER = b"other bytes"

_BROKEN = {
    "create_once": "it overwrites an object that a PUT with If-None-Match: * must leave alone",
    "swap_once": "it overwrites an object that a PUT with a stale If-Match must leave alone",
    "exact_ranges": "it does not answer a range request with exactly that range",
    "list_after_write": "its listings do not show what was just written, or still show what was just deleted",
}

_known: dict[str, StoreFormat] = {}
_known_lock = threading.Lock()


@runtime_checkable
class Probed(Protocol):
    """What a store has besides the protocol when its server's promises must be found out."""

    def refuses_stale_swap(self, name: str) -> bool:
        """Whether the server refuses to replace a version of *name* that is no longer there."""
        ...

    def learn(self, honours_conditions: bool) -> None:
        """Be told what was found."""
        ...


def read_format(store: Store) -> StoreFormat | None:
    """Return what *store*'s format.json says, None where there is none; CorruptObjectError where it is not ours."""
    try:
        return StoreFormat.from_bytes(store.get(FORMAT_NAME))
    except NotFoundError:
        return None


def ensure_format(store: Store) -> StoreFormat:
    """Return the promises of *store*, found out and written down now if nobody did before.

    Call before the first write.  Remembered per URL in this process for remote stores; a directory or
    memory is asked each time, which costs little, since it may have been made anew.  Raises StorageError,
    not transient, that names each broken promise when the store cannot be used.
    """
    with _known_lock:
        found = _known.get(store.url)
    if found is None:
        found = read_format(store) or _first_writer(store)
        if not _is_ours(store):
            with _known_lock:
                _known[store.url] = found
    if probed := _probed(store):
        probed.learn(found.honours_conditions)
    return found


def probe(store: Store) -> StoreFormat:
    """Find out what *store* promises.  Writes and removes a few small objects under `probes/`."""
    folder = f"{PROBES}{uuid.uuid4().hex}/"
    names = [f"{folder}{what}" for what in ("create", "swap", "list")]
    # One that says by itself that it keeps no conditions is believed: no trial shows what happens in a race.
    tries = _probed(store) is not None or store.honours_conditions
    try:
        create_once = _creates_once(store, names[0])
        return StoreFormat(
            create_once=tries and create_once,
            swap_once=tries and _swaps_once(store, names[1]),
            exact_ranges=_ranges_are_exact(store, names[0]),
            list_after_write=_lists_after_write(store, folder, names[2]),
        )
    finally:
        # A failure to clean up must not hide why the probe failed, and what stays is harmless.
        with suppress(VolumeError):
            for name in names:
                store.delete(name)


def broken(found: StoreFormat) -> list[str]:
    """Return a sentence for each promise that *found* lacks."""
    return [sentence for promise, sentence in _BROKEN.items() if not getattr(found, promise)]


def _first_writer(store: Store) -> StoreFormat:
    found = StoreFormat() if _is_ours(store) else probe(store)
    if not (found.exact_ranges and found.list_after_write):
        raise StorageError(
            f"{store.url} cannot hold volumes, since this server breaks what it must promise: "
            + "; ".join(broken(found))
            + "; nothing was written; use another server, or another way to serve the same bytes"
        )
    if probed := _probed(store):
        probed.learn(found.honours_conditions)
    try:
        store.put_new(FORMAT_NAME, found.to_bytes())
    except ConflictError:
        # Another first writer was faster; its word counts, so that all go by the same.
        return StoreFormat.from_bytes(store.get(FORMAT_NAME))
    return found


def _creates_once(store: Store, name: str) -> bool:
    store.put_new(name, _FIRST)
    refused = _conflicts(lambda: store.put_new(name, _OTHER))
    kept = store.get(name) == _FIRST
    if not kept:
        store.put(name, _FIRST)
    return refused and kept


def _swaps_once(store: Store, name: str) -> bool:
    if probed := _probed(store):
        return retried(f"probe {store.url}/{name}", lambda: probed.refuses_stale_swap(name))
    store.swap(name, None, b"first")
    store.swap(name, b"first", b"second")
    return _conflicts(lambda: store.swap(name, b"first", b"third")) and store.get(name) == b"second"


def _ranges_are_exact(store: Store, name: str) -> bool:
    ends = len(_FIRST)
    for offset, length in ((0, 1), (3, 300), (ends - 2, 2), (ends - 2, 100), (ends, 5)):
        try:
            if store.get_range(name, offset, length) != _FIRST[offset : offset + length]:
                return False
        except StorageError as error:
            if error.transient:
                raise
            # The library refuses an answer that is not the range.  If the whole object cannot be had
            # either, something else is wrong, and this raises it.
            store.get(name)
            return False
    return True


def _lists_after_write(store: Store, folder: str, name: str) -> bool:
    store.put(name, b"x")
    shown = name in {found.name for found in store.names(folder)}
    store.delete(name)
    return shown and name not in {found.name for found in store.names(folder)}


def _conflicts(call: Callable[[], None]) -> bool:
    try:
        call()
    except ConflictError:
        return True
    return False


def _is_ours(store: Store) -> bool:
    # Directories and memory are code of this package: their promises are kept by its tests.
    return store.local_root is not None or store.url.startswith("memory://")


def _probed(store: Store) -> Probed | None:
    """Return the store inside all wrappers, if its server's promises must be found out."""
    inner: object = store
    while not isinstance(inner, Probed):
        inner = getattr(inner, "inner", None)
        if inner is None:
            return None
    return inner
