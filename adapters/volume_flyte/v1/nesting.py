"""Volumes within unions and pydantic models, which flytekit's own transformers convert.

Why these transformers are put in the place of theirs: theirs forget what went wrong within. A commit that fails for
the moment would be told as a type that does not fit, and not be retried; and a union of both classes, of which no
value can be told from one of the other, would fail when its first value comes, where it can be seen when the task is
declared.

Always true: what is not about a volume goes to flytekit's own code, and comes back as it is.
"""

from __future__ import annotations

import traceback
from typing import Any

from flytekit.core.context_manager import FlyteContext
from flytekit.core.type_engine import TypeTransformerFailedError, UnionTransformer, get_underlying_type
from flytekit.extras.pydantic_transformer.transformer import PydanticTransformer
from flytekit.models.literals import Literal
from flytekit.models.types import LiteralType
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from volume_core.errors import VolumeError
from volume_flyte.fields import mixed_classes
from volume_flyte.v1.handing import commit_failed, failures


class VolumeUnionTransformer(UnionTransformer):
    """flytekit's, which says why."""

    def get_literal_type(self, t: Any) -> LiteralType | None:
        """Refuse a union of both classes; else flytekit's."""
        if problem := mixed_classes(get_underlying_type(t)):
            raise TypeTransformerFailedError(problem)
        return super().get_literal_type(t)

    async def async_to_literal(
        self, ctx: FlyteContext, python_val: Any, python_type: Any, expected: LiteralType
    ) -> Literal:
        """flytekit's; where no type fits, the error of the volume that did not get through."""
        with failures() as seen:
            try:
                return await super().async_to_literal(ctx, python_val, python_type, expected)
            except TypeError:
                if seen:
                    raise seen[0] from seen[0].__cause__
                raise

    async def async_to_python_value(self, ctx: FlyteContext, lv: Literal, expected_python_type: Any) -> Any:
        """flytekit's; where no type fits, the error of the volume that could not be looked up."""
        with failures() as seen:
            try:
                return await super().async_to_python_value(ctx, lv, expected_python_type)
            except TypeError:
                if seen:
                    raise seen[0] from seen[0].__cause__
                raise


class VolumeModelTransformer(PydanticTransformer):
    """flytekit's, which says why."""

    def to_literal(
        self, ctx: FlyteContext, python_val: BaseModel, python_type: type[BaseModel], expected: LiteralType
    ) -> Literal:
        """flytekit's; where a field could not be committed, that error."""
        try:
            return super().to_literal(ctx, python_val, python_type, expected)
        except PydanticSerializationError:
            # It has the error as text alone; into Python's values it is the cause.  If this works the commit did.
            try:
                python_val.model_dump(mode="json")
            except PydanticSerializationError as again:
                cause = again.__cause__
                if isinstance(cause, Exception) and _is_of_a_commit(cause):
                    raise commit_failed(cause) from cause
                raise
            return super().to_literal(ctx, python_val, python_type, expected)


def _is_of_a_commit(error: Exception) -> bool:
    if isinstance(error, VolumeError):
        return True
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "volume_core.volumes" for frame, _ in frames)
