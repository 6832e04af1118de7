"""flytekit's decks: a page for each volume, and no task that fails for one."""

from __future__ import annotations

import pytest
from flytekit import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from v1_kit import failing, fill, made

from volume_core import ROVolume, RWVolume, Volume


def shown(value, declared=ROVolume) -> str:
    return TypeEngine.to_html(FlyteContextManager.current_context(), value, declared)


def test_a_version_and_what_a_writer_has_committed():
    version = made("data", a="a")

    assert version.version in shown(version)
    assert version.version in shown(version.fork_sync("fork"), RWVolume)
    assert "data" in shown(version)


def test_a_writer_of_which_nothing_is_committed():
    assert "nothing is committed" in shown(fill(Volume.new("data"), a="a"), RWVolume)


@pytest.mark.loud
def test_a_page_that_cannot_be_made_is_a_line_that_says_why():
    version = made("data", a="a")
    elsewhere = RWVolume.model_validate(version.model_dump())  # which has read nothing yet
    with failing(operations=frozenset({"get"})):
        page = shown(elsewhere, RWVolume)

    assert "StorageError: injected: get" in page
