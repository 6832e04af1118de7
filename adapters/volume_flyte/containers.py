"""What a task's container was started with, for whoever asks where the SDK's own context is not.

Why: an SDK keeps the running task in context variables, which a thread of the task's own (a pool's) does not have, and
which are not set yet when the task's module is imported.  A volume that is made there must lie where the others do: on
the disk of the pod it would go with the pod.

Always true: None outside a task's container; no SDK is imported here.
"""

from __future__ import annotations

import os
import sys

# Both SDKs' control planes set it in every container of a task, and nothing else does.
_IS_IN_A_CONTAINER = "FLYTE_INTERNAL_EXECUTION_PROJECT"


def option(*names: str) -> str | None:
    """Return the value of the first option of this process's command line that is called one of *names*."""
    if not os.environ.get(_IS_IN_A_CONTAINER):
        return None
    for number, word in enumerate(sys.argv[1:], 1):
        if word == "--":
            break
        name, has_value, value = word.partition("=")
        if name in names:
            return value if has_value else next(iter(sys.argv[number + 1 : number + 2]), None)
    return None
