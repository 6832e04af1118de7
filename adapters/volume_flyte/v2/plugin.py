"""What flyte's entry point `flyte.plugins.types` calls."""

from __future__ import annotations


def register() -> None:
    """Make volumes a type of flyte 2."""
