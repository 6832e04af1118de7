"""Other stores than a directory, other settings than the defaults, and who is told of what."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from facade_kit import committed, contents, mounts_below, read, write

from volume_core import ActionRef, InvalidNameError, MountError, RWVolume, Volume, VolumeError, hookimpl
from volume_core.facade.settings import cache_limit_bytes, mount_root, upper_limit_bytes
from volume_core.mount.request import CACHE_LIMIT_BYTES
from volume_core.parts.state import State
from volume_core.plugins import manager
from volume_core.storage.local import LocalStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plugin():
    """Register hooks for one test."""
    undo = []

    def register(**functions):
        undo.append(
            manager.register(SimpleNamespace(**{n: hookimpl(f) for n, f in functions.items()}), f"p{len(undo)}")
        )

    yield register
    for each in undo:
        each()


def staged() -> list[Path]:
    return list((State.default().root / "staging").glob("*"))


def test_a_volume_in_memory_has_the_whole_life(any_driver):
    volume = Volume.new("data", "memory://life")
    with volume.mounted_sync(driver=any_driver) as path:
        write(path, {"a": "1", "d/b": "2" * 100_000})
        first = volume.commit_sync()
        write(path, {"c": "3"})
    with first.mounted_sync(driver=any_driver) as path:
        assert {"a": "1", "d/b": "2" * 100_000} == read(path)
        assert 1 == len(staged())
    fork = volume.committed.fork_sync("fork")
    with fork.mounted_sync(driver=any_driver) as path:
        (path / "a").unlink()
        write(path, {"d/b": "4"})

    assert {"c": "3", "d/b": "4"} == contents(fork.committed)
    assert [] == staged() == fork.committed.verify_sync()
    assert "memory" == fork.storage


def test_what_ends_with_the_process_cannot_stay_mounted():
    version = Volume.new("data", "memory://detached").commit_sync()

    with pytest.raises(MountError, match="memory://detached ends with this process"):
        version.mount_sync(detach=True)


def test_what_a_killed_process_staged_is_removed_by_the_next(python):
    code = (
        "import os\nfrom volume_core import Volume\n"
        "v = Volume.new('data', 'memory://x').commit_sync(); v.mount_sync(driver='copy'); os._exit(9)"
    )
    python(code, check=False)
    assert 1 == len(staged())
    version = Volume.new("data", "memory://x").commit_sync()
    with version.mounted_sync(driver="copy"):
        assert 1 == len(staged())

    assert [] == staged()


def test_a_detached_mount_stays_until_it_is_taken_down(driver, python, tmp_path):
    version = committed()
    code = (
        "import sys; from volume_core import Volume; "
        "print(Volume.from_locator_sync(sys.argv[1]).mount_sync(driver=sys.argv[2], detach=True))"
    )
    path = Path(python(code, version.locator, driver).stdout.strip())
    found = read(path)
    python(
        "import sys; from volume_core.facade.surveying import find_mount; find_mount(sys.argv[1]).unmount()", str(path)
    )

    assert {"a.txt": "a", "d/b.txt": "b"} == found
    assert not path.exists()
    assert [] == mounts_below(tmp_path)


def test_a_detached_writer_is_committed_by_whoever_comes(driver, python):
    version = committed()
    code = (
        "import sys; from volume_core import Volume; v = Volume.from_locator_sync(sys.argv[1]).fork_sync('fork'); "
        "print(v.mount_sync(driver=sys.argv[2], detach=True)); print(v.status_sync().working_copy)"
    )
    path, work_id = python(code, version.locator, driver).stdout.split()
    write(Path(path), {"new": "1"})
    first = Volume.recover_sync(work_id).commit_sync()
    write(Path(path), {"newer": "2"})
    later = Volume.recover_sync(work_id)
    assert (path, driver) == (str(later.mount_path), later.driver)
    second = later.finalize_sync()

    assert not os.path.exists(path)
    assert "newer" not in contents(first)
    assert {"a.txt": "a", "d/b.txt": "b", "new": "1", "newer": "2"} == contents(second)


def test_a_cache_may_lie_elsewhere(tmp_path, driver):
    version = committed()
    with version.mounted_sync(driver=driver, meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache") as path:
        assert "a" == (path / "a.txt").read_text()

    assert list((tmp_path / "meta" / "layers").glob("*.sqlite"))
    assert (tmp_path / "cache").is_dir()


def test_options_of_other_volumes_are_accepted():
    with committed().mounted_sync(driver="copy", attr_cache=1.0, entry_cache=1.0, dir_entry_cache=1.0) as path:
        assert path.exists()


def test_a_driver_that_is_none_is_refused():
    with pytest.raises(InvalidNameError, match="there is no driver 'tape'; there are auto, kernel, fuse-overlay, copy"):
        committed().mount_sync(driver="tape")


def test_the_driver_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    version = committed()
    with version.mounted_sync():
        assert "copy" == version.driver


def test_a_plugins_driver_is_used_by_its_name(plugin):
    from volume_core.mount.copying import CopyDriver

    class Loud(CopyDriver):
        name = "loud"

    loud = Loud()
    plugin(volume_mount_driver=lambda: loud)
    with committed().mounted_sync(driver="loud") as path:
        assert {"a.txt": "a", "d/b.txt": "b"} == read(path)


def test_work_is_mounted_by_the_driver_that_wrote_it_alone():
    volume = Volume.new("data")
    write(volume.mount_sync(driver="copy"), {"a": "1"})
    volume.unmount_sync()
    with pytest.raises(MountError, match="was written by the driver copy"):
        volume.mount_sync(driver="kernel")
    with volume.mounted_sync() as path:
        assert {"a": "1"} == read(path)


def test_a_scheme_that_a_plugin_brings_works_from_end_to_end(plugin, tmp_path):
    class Shelf(LocalStore):
        url = "shelf://a"

    plugin(volume_open_store=lambda url: Shelf(tmp_path / "shelf") if url == "shelf://a" else None)
    volume = Volume.new("data", "shelf://a")
    version = volume.commit_sync()

    assert version.locator.startswith("shelf://a/versions/data/")
    assert ("shelf", "shelf://a") == (version.storage, version.bucket)
    assert version == Volume.from_locator_sync(version.locator)
    assert [] == version.verify_sync()


def test_who_asked_is_told_of_mounts_and_commits(plugin, driver):
    actions = [ActionRef(engine="e", action="first"), ActionRef(engine="e", action="second")]
    told, current = [], actions[:1]
    plugin(
        volume_current_task=lambda: current[0],
        volume_committed=lambda version, action: told.append((version.name, version.locator, action.action)),
        volume_mounted=lambda name, locator, driver, writable: told.append((name, locator, driver, writable)),
    )
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver) as path:
        write(path, {"a": "1"})
        first = volume.commit_sync()
        volume.commit_sync()
    current[:] = actions[1:]
    fork = first.fork_sync("fork")
    with fork.mounted_sync(driver=driver) as path:
        write(path, {"b": "1"})
    second = fork.committed

    assert [
        ("data", None, driver, True), ("data", first.locator, "first"),
        ("fork", first.locator, driver, True), ("fork", second.locator, "second"),
    ] == told  # fmt: skip
    assert (actions[0], None) == (first.produced_by, first.parent_produced_by)
    assert (actions[1], actions[0]) == (second.produced_by, second.parent_produced_by)


@pytest.mark.loud
def test_a_plugin_that_fails_at_news_stops_no_commit(plugin, caplog):
    plugin(volume_committed=lambda version: 1 / 0)
    version = Volume.new("data").commit_sync()

    assert [] == version.verify_sync()
    assert "adapter p0 failed in volume_committed" in caplog.text


@pytest.mark.loud
def test_an_upper_that_grows_large_is_warned_of(monkeypatch, caplog):
    monkeypatch.setenv("VOLUME_UPPER_LIMIT", "1M")
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        (path / "small").write_bytes(b"x" * 1000)
        volume.commit_sync()
        assert "VOLUME_UPPER_LIMIT" not in caplog.text
        (path / "big").write_bytes(b"x" * (2 << 20))
        volume.commit_sync()
        assert "VOLUME_UPPER_LIMIT" in caplog.text


def test_sizes_have_units_and_nonsense_is_named(monkeypatch):
    assert (CACHE_LIMIT_BYTES, None) == (cache_limit_bytes(), upper_limit_bytes())
    for text, expected in {
        "17": 17,
        "2K": 2048,
        "1.5M": 3 << 19,
        "20G": 20 << 30,
        "1 TiB": 1 << 40,
        " 5GB ": 5 << 30,
    }.items():
        monkeypatch.setenv("VOLUME_CACHE_LIMIT", text)
        assert expected == cache_limit_bytes()
    monkeypatch.setenv("VOLUME_CACHE_LIMIT", "much")
    with pytest.raises(VolumeError, match=r"\$VOLUME_CACHE_LIMIT is 'much'"):
        cache_limit_bytes()
    monkeypatch.delenv("VOLUME_MOUNT_ROOT")
    assert Path.home() / "volumes" == mount_root()


def test_a_fork_costs_nothing_at_any_size(monkeypatch):
    version = committed()
    record = version.model_dump() | {"used_bytes": 1 << 50, "inode_count": 10**9}
    huge = Volume.model_validate(record)
    monkeypatch.setattr("volume_core.facade.versions.Place.store", lambda self: pytest.fail("a fork asked the store"))
    started = time.perf_counter()
    fork = huge.fork_sync("fork")

    assert isinstance(fork, RWVolume)
    assert time.perf_counter() - started < 0.05


def test_every_variable_in_the_code_is_documented_and_every_documented_one_is_in_the_code():
    code = {
        name
        for top in ("volume_core", "adapters")
        for path in (ROOT / top).rglob("*.py")
        for name in re.findall(r"\bVOLUME_[A-Z_]+[A-Z]\b", path.read_text())
    }
    documented = set(
        re.findall(r"^\| `(VOLUME_[A-Z_]+)`", (ROOT / "docs" / "configuration.md").read_text(), re.MULTILINE)
    )

    assert code == documented
