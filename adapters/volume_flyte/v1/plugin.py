"""What flytekit's entry point `flytekit.plugins` loads, at the end of every `import flytekit`.

Always true: to import this never raises, since that would break `import flytekit` for everyone; it loads nothing of
volumes, which most processes that import flytekit have nothing to do with.  The classes become types when they are
loaded, whichever of the two comes first.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class _NotLoaded:
    """Stands in flytekit's registry for the classes: a literal's type may be asked for before them."""


def _register() -> None:
    from volume_flyte.v1.registering import register

    register()


def _load() -> None:
    from flytekit.core.type_engine import TypeEngine

    from volume_core.plugins.waiting import when_volumes_load
    from volume_flyte.v1.transformer import transformer

    TypeEngine.register_additional_type(transformer(), _NotLoaded)
    when_volumes_load(_register)


try:
    _load()
except Exception as error:
    log.warning(
        "tasks cannot take or return volumes: %s: %s; is volume-core whole, and does it fit this flytekit "
        "(pip check; pip install -U 'volume-core[flyte]')?",
        type(error).__name__, error,
    )  # fmt: skip
