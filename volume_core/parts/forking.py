"""What a forked child must make anew: locks that another thread held, and threads that it has not got.

Why: engines fork their workers, from any thread and at any moment.  A child that inherits a lock in the
hands of a thread that does not exist there would wait for ever.

Always true: whatever is remembered here and still alive has had its `_renew_after_fork` called in the child
before any other code of the child runs.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something with locks or threads of its own."""

    def _renew_after_fork(self) -> None:
        """Replace every lock, and forget what only a thread of the parent could finish."""
        ...


_known: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have *thing* made usable in every child that is forked while it lives."""
    _known.add(thing)


def _renew() -> None:
    for thing in list(_known):
        thing._renew_after_fork()


os.register_at_fork(after_in_child=_renew)
