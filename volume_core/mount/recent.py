"""A bounded memory of what was used lately.

Two generations instead of a list of uses: a hit costs one look-up in a dictionary and moves nothing, and what is
dropped is dropped all at once.  What was used within the last *limit* insertions is there; beyond twice as many
nothing is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers values that together weigh at most twice *limit* and one value more.  Used by one thread.

    *weigh* says what a value weighs; without it each weighs 1.
    """

    __slots__ = ("_limit", "_old", "_weigh", "_weight", "_young")

    def __init__(self, limit: int, weigh: Callable[[V], int] | None = None) -> None:
        self._limit = limit
        self._weigh = weigh
        self._weight = 0
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return what was put under *key*, or None if it was never or is no longer there."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember *value*, and forget the older generation when this one is full."""
        if self._weight >= self._limit:
            self._old = self._young
            self._young = {}
            self._weight = 0
        self._weight += 1 if self._weigh is None else self._weigh(value)
        self._young[key] = value
