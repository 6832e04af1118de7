"""What flyte's entry point `flyte.plugins.types` calls.

Always true: calling it again changes nothing.
"""

from __future__ import annotations


def register() -> None:
    """Make volumes a type of flyte 2."""
    from volume_flyte.v2 import models, transformer, unions

    transformer.register()
    unions.register()
    models.register()
