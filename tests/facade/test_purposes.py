"""A working copy says what it is written for, until somebody takes it over."""

from __future__ import annotations

import pytest
from facade_kit import contents, working_copies, write

from volume_core import BusyError, Volume
from volume_core.parts import workcopies
from volume_core.passing import purposes
from volume_core.passing.purposes import PURPOSE


def left() -> list[tuple[str, str]]:
    return [(work.purpose, work.name) for work in purposes.left(lambda text: text.startswith("task"))]


def test_work_is_found_by_what_it_is_for(driver):
    volume, other = Volume.new("data"), Volume.new("other")
    purposes.is_for(volume, "task 1")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    write(other.mount_sync(driver=driver), {"a": "1"})
    [work] = purposes.left(lambda _: True)
    assert ("task 1", "data", None, True) == (work.purpose, work.name, work.base, work.in_use)
    with pytest.raises(BusyError):
        purposes.go_on(work.work_id, "task 1, again")
    volume.close_sync()
    other.abandon_sync()

    again = purposes.go_on(work.work_id, "task 1, again")

    assert [("task 1, again", "data")] == left()
    write(again.mount_sync(), {"b": "2"})
    assert {"a": "1", "b": "2"} == contents(again.finalize_sync())
    assert [] == working_copies()


def test_what_is_written_after_a_commit_or_a_reload_is_for_the_same(driver):
    volume = Volume.from_name_sync("data", create_if_missing=True)
    purposes.is_for(volume, "task 1")
    with volume.mounted_sync(driver=driver) as path:
        write(path, {"a": "1"})
    write(volume.mount_sync(driver=driver), {"b": "2"})
    with Volume.from_name_sync("data").mounted_sync(driver=driver) as path:
        write(path, {"c": "3"})

    volume.reload_sync()

    assert [("task 1", "data")] == left()
    again = purposes.go_on(volume.close_sync(), "task 2")
    again.mount_sync(driver=driver)
    with Volume.from_name_sync("data").mounted_sync(driver=driver) as path:
        write(path, {"d": "4"})
    again.reload_sync()
    assert [("task 2", "data")] == left()
    again.abandon_sync()


def test_whoever_recovers_work_takes_it_for_himself(driver):
    volume = Volume.new("data")
    purposes.is_for(volume, "task 1")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    work_id = volume.close_sync()

    work_id = Volume.recover_sync(work_id).close_sync()

    assert [] == left()
    assert {"a": "1"} == contents(Volume.recover_sync(work_id).finalize_sync())


def test_a_full_disk_does_not_keep_anybody_from_recovering(driver, monkeypatch):
    volume = Volume.new("data")
    purposes.is_for(volume, "task 1")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    work_id = volume.close_sync()

    def full(*_: object, **changes: dict[str, str]) -> None:
        if PURPOSE not in changes["notes"]:
            raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(workcopies.WorkingCopy, "update", full)
        recovered = Volume.recover_sync(work_id)

    assert {"a": "1"} == contents(recovered.finalize_sync())


def test_work_can_be_made_to_be_for_nothing(driver):
    volume = Volume.new("data")
    purposes.is_for(volume, "task 1")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    [work] = purposes.left(lambda _: True)
    purposes.is_for_nothing(work.work_id)
    assert [("task 1", "data")] == left()  # it is in use

    work_id = volume.close_sync()
    purposes.is_for_nothing(work_id)
    purposes.is_for_nothing("no such copy")

    assert [] == left()
    Volume.recover_sync(work_id).abandon_sync()
