"""Values within values: where a result holds writers, the same result with versions in their places.

Why not an engine's own walk through values: they make a dataclass anew by its constructor, which fails for one with
fields that the constructor does not take, and for a mapping whose constructor takes something else (a defaultdict).
There a task that has done its work would fail for the form in which it returns it.

Always true: what holds nothing to be replaced comes back as it is, the same object; what does is copied, never changed,
with everything else in it the same object; one object is replaced once, wherever and however often it stands.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), type)


def replaced(value: Any, swap: Callable[[Any], Any]) -> Any:
    """Return *value* with each object in it, and itself, replaced by what *swap* returns: the same one to keep it.

    Looked into are lists, tuples, sets, dictionaries and deques, dataclasses, attrs classes and pydantic models, and
    what derives from these.
    """
    return _Replacing(swap).of(value)


class _Replacing:
    def __init__(self, swap: Callable[[Any], Any]) -> None:
        self._swap = swap
        # What was given is kept with what it became: its id is no other's meanwhile.
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, value: Any) -> Any:
        if isinstance(value, _LEAVES):
            return value
        if (known := self._known.get(id(value))) is not None:
            return known[1]
        self._known[id(value)] = (value, value)  # of a value within itself
        swapped = self._swap(value)
        found = swapped if swapped is not value else self._rebuilt(value)
        self._known[id(value)] = (value, found)
        return found

    def _rebuilt(self, value: Any) -> Any:
        if isinstance(value, list | tuple | set | frozenset | collections.deque):
            return self._sequence(value)
        if isinstance(value, dict):
            return self._mapping(value)
        if isinstance(value, BaseModel):
            # Not dict(value): a model may iterate over something else, as one of a list does.
            changed = self._changed({**vars(value), **(value.__pydantic_extra__ or {})})
            return value.model_copy(update=changed) if changed else value
        if isinstance(value, type):
            return value
        if dataclasses.is_dataclass(value):
            return self._fields(value, (field.name for field in dataclasses.fields(value)))
        if (attributes := getattr(type(value), "__attrs_attrs__", None)) is not None:
            return self._fields(value, (attribute.name for attribute in attributes))
        return value

    def _sequence(self, value: Any) -> Any:
        given = list(value)  # once: a class of its own may make each item anew
        items = [self.of(item) for item in given]
        if all(new is old for new, old in zip(items, given, strict=True)):
            return value
        if isinstance(value, list | collections.deque):
            made = copy.copy(value)
            made.clear()
            made.extend(items)
            return made
        if hasattr(value, "_make"):
            return value._make(items)
        return type(value)(items)

    def _mapping(self, value: dict[Any, Any]) -> Any:
        given = list(value.items())
        items = [(self.of(key), self.of(item)) for key, item in given]
        if all(key is old and item is was for (key, item), (old, was) in zip(items, given, strict=True)):
            return value
        made = copy.copy(value)
        made.clear()
        for key, item in items:
            made[key] = item
        return made

    def _fields(self, value: Any, names: Iterable[str]) -> Any:
        changed = self._changed({name: getattr(value, name) for name in names if hasattr(value, name)})
        if not changed:
            return value
        made = copy.copy(value)
        for name, item in changed.items():
            object.__setattr__(made, name, item)  # it may be frozen
        return made

    def _changed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = {name: self.of(item) for name, item in fields.items()}
        return {name: item for name, item in found.items() if item is not fields[name]}
