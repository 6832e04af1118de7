"""Whose credentials a process has that serves many: triggers of all DAGs, readers of pages, forms that are tested.

Always true: it has one store's at a time, for as many users at once as there are; who needs another's waits for his
turn, and gets it, however many come for the first one meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from volume_airflow.stores import VolumeStore

_Each = TypeVar("_Each")


class Turns:
    """The turns of one process, for its environment is one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._whose: object = None
        self._store: VolumeStore | None = None
        self._many = 0
        self._waiting: list[object] = []  # those of other stores, first come first served

    @contextlib.contextmanager
    def taken_by(self, store: VolumeStore | None) -> Iterator[None]:
        """For the length of a `with` statement the process has the credentials of *store*."""
        whose = tuple(sorted((key, value or "") for key, value in store.variables.items())) if store else ()
        self._take(whose, store)
        try:
            with store.use() if store is not None else contextlib.nullcontext():
                yield
        finally:
            with self._changed:
                self._many -= 1
                self._changed.notify_all()

    def are_taken(self) -> tuple[bool, VolumeStore | None]:
        """Return whether somebody has a turn, and for which store."""
        with self._changed:
            return self._many > 0, self._store if self._many else None

    def _take(self, whose: object, store: VolumeStore | None) -> None:
        with self._changed:
            ticket = object()
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is ticket and (not self._many or self._whose == whose))
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()  # the next one may be of the same store
            self._whose, self._store = whose, store
            self._many += 1

    def each(self, store: VolumeStore | None, items: Iterator[_Each]) -> Iterator[_Each]:
        """Yield *items*, each of which is asked for with the credentials of *store*; between two others have theirs."""
        while True:
            with self.taken_by(store):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


turns = Turns()
