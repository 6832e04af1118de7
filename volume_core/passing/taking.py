"""What a task or flow takes: for parameters that are annotated as volumes, whatever can stand for one becomes it.

    data: ROVolume           that version
    data: RWVolume           a fork of it, under the same name, for each attempt
    data: list[RWVolume] | None, Annotated[...], dict[str, ROVolume], ...   the same within

Why here: engines hand values to a task's function as they are, whatever its annotations say.

Always true: parameters whose annotation names no volume are passed on untouched, whatever they hold; a function without
such parameters is called with exactly what was given; annotations are looked up at the first call, when what they name
is defined.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from volume_core.errors import InvalidNameError, VolumeError
from volume_core.volumes import ROVolume, RWVolume, Volume

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_CLASSES = (Volume, ROVolume, RWVolume)
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_KNOWN = {each.__name__: each for each in _CLASSES}


class Taking:
    """The parameters of one function that are volumes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._name = getattr(function, "__qualname__", repr(function))

    def __reduce__(self) -> tuple[Any, ...]:
        return Taking, (self._function,)  # annotations are looked up again, where they are needed

    @functools.cached_property
    def _adapters(self) -> dict[str, tuple[inspect._ParameterKind, TypeAdapter[Any]]]:
        found = {}
        for name, parameter in self._signature.parameters.items():
            annotation = _annotation(self._function, name, parameter.annotation)
            if names_a_volume(annotation) and (adapter := _adapter(annotation)) is not None:
                found[name] = (parameter.kind, adapter)
        return found

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self._function)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments | None:
        """Return what the call gives for each parameter; None if none is a volume, or the call does not fit."""
        if not self._adapters:
            return None
        try:
            call = self._signature.bind(*args, **kwargs)
        except TypeError:
            return None  # the function says so itself
        call.apply_defaults()
        return call

    def swapped(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], swap: Callable[[str, Any], Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]] | None:
        """Return *args* and *kwargs* with *swap*(name, value) in the place of what is given for each parameter that is
        a volume, also of what is given by default; None if none is.

        They need not be all that the function wants: an engine may add others later.
        """
        if not self._adapters:
            return None
        try:
            given = self._signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return None  # the function says so itself
        places = list(self._signature.parameters)
        positional, named = list(args), dict(kwargs)
        for name, (kind, _) in self._adapters.items():
            parameter = self._signature.parameters[name]
            if name not in given:
                if parameter.default not in (inspect.Parameter.empty, None) and kind is not _POSITIONAL_ONLY:
                    named[name] = swap(name, parameter.default)
                continue
            taken = swap(name, given[name])
            if kind is inspect.Parameter.VAR_POSITIONAL:
                positional[places.index(name) :] = taken
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named.update(taken)
            elif name in kwargs and kind is not _POSITIONAL_ONLY:
                named[name] = taken
            else:
                positional[places.index(name)] = taken
        return positional, named

    def names(self) -> Iterator[str]:
        """Yield the parameters that are volumes."""
        yield from self._adapters

    def taken(self, name: str, value: Any) -> Any:
        """Return *value* as the parameter *name* wants it.

        Raises InvalidNameError naming the parameter if it can stand for no volume, NotFoundError if it names one that
        there is not.
        """
        kind, adapter = self._adapters[name]
        try:
            if kind is inspect.Parameter.VAR_POSITIONAL:
                return tuple(adapter.validate_python(item) for item in value)
            if kind is inspect.Parameter.VAR_KEYWORD:
                return {key: adapter.validate_python(item) for key, item in value.items()}
            return adapter.validate_python(value)
        except ValidationError as error:
            said = "; ".join(dict.fromkeys(map(_said, error.errors(include_url=False))))
            raise InvalidNameError(f"parameter {name!r} of {self._name}: {said}") from error
        except VolumeError as error:
            error.add_note(f"this is parameter {name!r} of {self._name}")
            raise


def _said(wrong: ErrorDetails) -> str:
    """Return what is *wrong*, in words about volumes; of what was given, which may be secret, its type alone."""
    if wrong["type"] != "model_type":
        return wrong["msg"]
    given = wrong["input"]
    if given is None:
        return "None stands for no volume: did what should give one return nothing?"
    return (
        f"a value of type {type(given).__name__} stands for no volume: give a version, its record or locator, NAME or "
        "NAME:REF, or a vol:// URL"
    )


def _annotation(function: Callable[..., Any], name: str, given: Any) -> Any:
    """Return the annotation *given*, looked up if it is text; None where that cannot be done."""
    if not isinstance(given, str):
        return given
    inner = inspect.unwrap(function)
    scope = dict(getattr(inner, "__globals__", {}))
    closed = inspect.getclosurevars(inner).nonlocals if inspect.isfunction(inner) else {}
    names = {**_KNOWN, **scope, **closed}  # an import for type checkers only is no reason to miss a volume
    try:
        return typing.get_type_hints(_Annotated(name, given), names, names, include_extras=True)[name]
    except Exception:  # whatever evaluating text raises: what cannot be looked up is no volume
        return None


def takes_volumes(function: Callable[..., Any]) -> bool:
    """Whether *function* has a parameter that is annotated as a volume, alone or within something."""
    parameters = _signature_of(function).parameters.items()
    return any(names_a_volume(_annotation(function, name, each.annotation)) for name, each in parameters)


def returns_volumes(function: Callable[..., Any]) -> bool:
    """Whether what *function* returns is annotated as a volume, alone or within something."""
    return names_a_volume(_annotation(function, "return", _signature_of(function).return_annotation))


def _signature_of(function: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # of some compiled functions nobody knows one
        return inspect.Signature()


class _Annotated:
    """Something with one annotation."""

    def __init__(self, name: str, annotation: str) -> None:
        self.__annotations__ = {name: annotation}


def names_a_volume(annotation: Any) -> bool:
    """Whether *annotation* is one of the classes, or holds one: list[...], Optional[...], Annotated[...]."""
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return issubclass(annotation, Volume)
    if isinstance(annotation, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return names_a_volume(annotation.__value__)
    return any(names_a_volume(each) for each in typing.get_args(annotation))


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    if isinstance(annotation, type) and issubclass(annotation, Volume):
        return TypeAdapter(annotation)
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError):
        return None
