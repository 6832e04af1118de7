"""A version as the running engine's own directory, or file: what the hook is asked, and where nobody answers."""

from __future__ import annotations

from types import SimpleNamespace

import fsspec
import pytest
from facade_kit import write

from volume_core import InvalidNameError, ROVolume, Volume, VolumeError, hookimpl
from volume_core.fs import url_of
from volume_core.plugins import manager


@pytest.fixture
def version() -> ROVolume:
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"a b": "1", "d/e": "2"})
    assert volume.committed is not None
    return volume.committed


@pytest.fixture
def engine():
    """An engine whose directories and files are ("directory" or "file", URL)."""
    undo = manager.register(
        SimpleNamespace(
            volume_reference=hookimpl(lambda url, is_directory: ("directory" if is_directory else "file", url))
        ),
        "engine",
    )
    yield
    undo()


def test_the_engine_is_asked_with_a_url_that_means_the_same_anywhere(version, engine):
    assert ("directory", url_of(version.locator)) == version.as_directory()
    assert ("directory", url_of(version.locator, "d")) == version.as_directory("/d/") == version.as_directory("d")
    kind, url = version.as_file("/a b")

    assert "file" == kind
    assert b"1" == fsspec.open(url).open().read()


def test_a_writer_is_committed_first_and_once(engine):
    volume = Volume.new("data")
    path = volume.mount_sync(driver="copy")
    write(path, {"x": "1"})

    first = volume.as_directory()
    again = volume.as_file("x")

    assert ("directory", url_of(volume.committed.locator)) == first
    assert ("file", url_of(volume.committed.locator, "x")) == again
    assert 1 == len(volume.committed.log_sync())
    volume.finalize_sync()


def test_without_an_engine_the_url_is_told(version):
    with pytest.raises(VolumeError, match="no engine's task runs here") as caught:
        version.as_directory("d")
    assert url_of(version.locator, "d") in str(caught.value)


def test_what_can_be_no_path_is_refused(version, engine):
    for call in (lambda: version.as_file("/"), lambda: version.as_file(""), lambda: version.as_directory("../x")):
        with pytest.raises(InvalidNameError):
            call()
