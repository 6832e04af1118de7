"""What becomes of a task's volumes where it does not simply end well: the options that adapters offer.

Always true: an Options has no value that there is not; nothing here imports volumes, for an adapter may ask for its
options while these are being loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

OnFailure = Literal["keep", "drop"]
Retry = Literal["fresh", "resume"]
OnTerminate = Literal["keep", "commit"]


class Choices(TypedDict, total=False):
    """The options as they are given; see Options."""

    on_failure: OnFailure
    retry: Retry
    on_terminate: OnTerminate | None
    message: str


@dataclass(frozen=True, slots=True)
class Options:
    """What becomes of the volumes of a task, or of whatever else an engine runs.

    on_failure: what was written and not committed is kept as a working copy (`keep`), or dropped (`drop`)
    retry: the next attempt has a fork of what the run was given (`fresh`), or goes on from what the failed one left
        (`resume`): its working copy, or its last commit
    on_terminate: SIGTERM commits what is mounted (`commit`), or keeps it and says where (`keep`); None: as any error
    message: of the commits; without it the task and its attempt
    """

    on_failure: OnFailure = "keep"
    retry: Retry = "fresh"
    on_terminate: OnTerminate | None = None
    message: str = ""

    @classmethod
    def of(cls, choices: Choices) -> Options:
        """Return *choices* with everything else filled in.  Raises TypeError, ValueError saying what there is."""
        if unknown := choices.keys() - Choices.__annotations__.keys():
            raise TypeError(
                f"there is no option {', '.join(sorted(unknown))}: there are {', '.join(Choices.__annotations__)}"
            )
        options = cls(**choices)
        for name, said in (("on_failure", OnFailure), ("retry", Retry), ("on_terminate", OnTerminate)):
            allowed: tuple[Any, ...] = get_args(said)
            given = getattr(options, name)
            if given not in allowed and not (given is None and name == "on_terminate"):
                raise ValueError(f"{name} is {given!r}: give {' or '.join(map(repr, allowed))}")
        return options
