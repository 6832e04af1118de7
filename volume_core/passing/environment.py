"""Setting this process's environment for a while, on behalf of somebody who has a name.

Always true:

  1. A variable that one owner has set is never changed by another as long as the first one needs it: that would give
     one store the other's keys.  It is an error that names both.  (The limit of the machine's one cache is no key: the
     last one counts.)
  2. An owner may come again, also from other threads, and with new values: the last ones count,
     and what is not among them is given back.
  3. When the last lease of all who need a variable ends, it is what it was before the first of them, unless somebody
     else has changed it since.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from volume_core.errors import VolumeError


class _Set:
    """What one owner has set."""

    def __init__(self) -> None:
        self.leases = 0
        self.values: dict[str, str | None] = {}


_OF_THE_MACHINE = frozenset({"VOLUME_CACHE_LIMIT"})

_lock = threading.Lock()
_sets: dict[str, _Set] = {}  # by owner
_before: dict[str, str | None] = {}  # what each variable was before its first owner


def _renew_lock() -> None:
    # The thread that set variables while another one forked does not exist in the child.
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


class Lease:
    """Variables that are set until `end`, or for the length of a `with` statement.  Its repr holds no value."""

    def __init__(self, owner: str, variables: Mapping[str, str | None]) -> None:
        self._owner = owner
        self._ended = False
        with _lock:
            _take(owner, variables)

    def __repr__(self) -> str:
        return f"Lease({self._owner!r})"

    def end(self) -> None:
        """Give the variables back, unless others of the same owner need them; again: nothing."""
        with _lock:
            if not self._ended:
                self._ended = True
                _give_back(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _take(owner: str, variables: Mapping[str, str | None]) -> None:
    for other, theirs in _sets.items():
        common = variables.keys() & theirs.values.keys() - _OF_THE_MACHINE
        differing = [name for name in common if theirs.values[name] != variables[name]]
        if other != owner and differing:
            raise VolumeError(
                f"{owner} needs another {', '.join(sorted(differing))} than {other}, which this process is using: use "
                f"them one after the other (with ....use():), or in processes of their own"
            )
    mine = _sets.setdefault(owner, _Set())
    mine.leases += 1
    for name in mine.values.keys() - variables.keys():  # of keys that the owner had, and has no more
        _release(name, mine.values.pop(name))
    for name, value in variables.items():
        _before.setdefault(name, os.environ.get(name))
        mine.values[name] = value
        _put(name, value)


def _give_back(owner: str) -> None:
    mine = _sets[owner]
    mine.leases -= 1
    if mine.leases:
        return
    del _sets[owner]
    for name, value in mine.values.items():
        _release(name, value)


def _release(name: str, value: str | None) -> None:
    """Give back one variable, which is in no owner's set any more for the one who had made it *value*."""
    others = [theirs.values[name] for theirs in _sets.values() if name in theirs.values]
    wanted = others[-1] if others else _before.pop(name)
    if os.environ.get(name) == value:
        _put(name, wanted)


def _put(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
