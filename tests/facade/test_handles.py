"""What becomes of mounts and of uncommitted work when handles, processes and threads come and go."""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from facade_kit import committed, contents, eventually, mounts_below, objects, working_copies, write

from volume_core import BusyError, NotFoundError, Volume, VolumeError
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.passing import mounting_on_demand


def test_a_collected_reader_is_unmounted(driver):
    version = committed()
    path = version.mount_sync(driver=driver)
    assert path.exists()
    del version
    gc.collect()

    assert eventually(lambda: not path.exists())


@pytest.mark.loud
def test_a_collected_writer_keeps_its_work_and_says_where(driver, caplog):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"a": "1"})
    del volume
    gc.collect()
    assert eventually(lambda: any("was not committed" in record.getMessage() for record in caplog.records))
    [work_id] = working_copies()

    assert work_id in caplog.text
    assert not path.exists()
    assert {"a": "1"} == contents(Volume.recover_sync(work_id).finalize_sync())


def test_a_collected_writer_that_committed_leaves_nothing(driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"a": "1"})
    version = volume.commit_sync()
    del volume
    gc.collect()

    assert eventually(lambda: not path.exists() and not working_copies())
    assert {"a": "1"} == contents(version)


EXIT = """
import sys
from volume_core import Volume
driver, commits = sys.argv[1:]
reader = Volume.new("reader").commit_sync()
print(reader.mount_sync(driver=driver), flush=True)
volume = Volume.new("data")
path = volume.mount_sync(driver=driver)
print(path, flush=True)
(path / "a").write_text("1")
if commits == "yes":
    print(volume.commit_sync().locator)
"""


@pytest.mark.parametrize("commits", ["yes", "no"])
def test_a_process_that_ends_leaves_no_mount_and_loses_no_work(driver, commits, python, tmp_path):
    ran = python(EXIT, driver, commits)
    reader, writer, *locator = ran.stdout.split()

    assert (False, False) == (os.path.exists(reader), os.path.exists(writer))
    assert [] == mounts_below(tmp_path)
    if commits == "yes":
        assert [] == working_copies()
        assert {"a": "1"} == contents(Volume.from_locator_sync(locator[0]))
        assert "" == ran.stderr
    else:
        [work_id] = working_copies()
        assert f"volume commit {work_id}" in ran.stderr
        assert {"a": "1"} == contents(Volume.recover_sync(work_id).finalize_sync())


KILLED = """
import sys, time
from volume_core import Volume
volume = Volume.new("data")
path = volume.mount_sync(driver=sys.argv[1])
(path / "a").write_text("1")
print(volume.commit_sync().locator, flush=True)
(path / "b").write_text("2")
print(path, flush=True)
time.sleep(600)
"""


def test_kill_9_loses_nothing_that_was_written(driver, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, driver], stdout=subprocess.PIPE, text=True)
    with process:
        locator, path = process.stdout.readline().strip(), process.stdout.readline().strip()
        [work_id] = working_copies()
        with pytest.raises(BusyError, match=f"in use by process {process.pid}"):
            Volume.recover_sync(work_id)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert eventually(lambda: driver == "copy" or not os.path.exists(path))
    recovered = Volume.recover_sync(work_id)

    assert (None, locator, True) == (recovered.mount_path, recovered.index, recovered.status_sync().changed)
    version = recovered.finalize_sync("rescued")
    assert {"a": "1", "b": "2"} == contents(version)
    assert [version.locator, locator] == [entry.volume.locator for entry in version.log_sync()]
    assert [] == working_copies()
    assert [] == mounts_below(tmp_path)


def test_recovered_work_can_be_mounted_again_or_dropped(driver):
    volume = Volume.new("data")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    work_id = volume.close_sync()
    recovered = Volume.recover_sync(work_id)
    with recovered.mounted_sync() as path:
        write(path, {"b": "2"})
    assert {"a": "1", "b": "2"} == contents(recovered.committed)
    write(recovered.mount_sync(driver=driver), {"c": "3"})
    Volume.recover_sync(recovered.close_sync()).abandon_sync()

    assert [] == working_copies()
    with pytest.raises(NotFoundError):
        Volume.recover_sync(work_id)


def test_work_from_another_boot_takes_a_word_and_the_version_says_so(driver):
    volume = Volume.new("data")
    write(volume.mount_sync(driver=driver), {"a": "1"})
    work_id = volume.close_sync()
    workcopies.load(State.default(), work_id).update(boot_id="another boot")

    with pytest.raises(VolumeError, match="when the machine went down"):
        Volume.recover_sync(work_id)
    version = Volume.recover_sync(work_id, allow_torn=True).finalize_sync()
    [entry] = version.log_sync()
    assert (".",) == entry.torn
    assert {"a": "1"} == contents(version)


def test_work_that_was_never_finished_being_made_is_not_committed():
    copy = workcopies.create(State.default(), volume="data", store_url="memory://", ready=False)

    with pytest.raises(VolumeError, match="never finished being made"):
        Volume.recover_sync(copy.id)


CHILD = """
import json, os, sys
from volume_core import Volume
driver = sys.argv[1]
version = Volume.from_locator_sync(sys.argv[2])
writer = version.fork_sync("writer")
read_path, write_path = version.mount_sync(driver=driver), writer.mount_sync(driver=driver)
(write_path / "from the parent").write_text("x")
out = os.pipe()
if os.fork() == 0:
    said = {}
    said["paths"] = [str(version.mount_sync()), str(writer.mount_sync())] == [str(read_path), str(write_path)]
    said["read"] = (read_path / "a.txt").read_text()
    (write_path / "from the child").write_text("x")
    for name in ("commit_sync", "finalize_sync", "abandon_sync", "unmount_sync", "status_sync"):
        try:
            getattr(writer, name)()
        except Exception as error:
            said[name] = type(error).__name__
    version.unmount_sync()
    own = version.fork_sync("child")
    with own.mounted_sync(driver=driver) as path:
        (path / "own").write_text("x")
    said["own"] = own.committed.locator
    os.write(out[1], json.dumps(said).encode())
    sys.exit()
os.close(out[1])
os.wait()
said = json.loads(os.read(out[0], 65536))
said["alive"] = (read_path / "a.txt").read_text() == "a"
said["committed"] = writer.finalize_sync().locator
print(json.dumps(said))
"""


def test_a_forked_child_uses_its_parents_mounts_and_takes_none_of_them_down(driver, python):
    version = committed()
    ran = python(CHILD, driver, version.locator)
    said = json.loads(ran.stdout)

    assert "" == ran.stderr
    assert (True, True, "a") == (said["paths"], said["alive"], said["read"])
    refused = {"commit_sync", "finalize_sync", "abandon_sync", "unmount_sync", "status_sync"}
    assert {"VolumeError"} == {said[name] for name in refused}
    assert {"from the parent", "from the child"} < contents(Volume.from_locator_sync(said["committed"])).keys()
    assert "own" in contents(Volume.from_locator_sync(said["own"]))
    assert [] == working_copies()


def test_uncommitted_work_refuses_to_be_pickled_and_copied(driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    assert pickle.loads(pickle.dumps(volume)).model_dump() == volume.model_dump()
    write(path, {"a": "1"})
    for refuse in (pickle.dumps, lambda each: each.model_copy()):
        with pytest.raises(TypeError, match="not committed"):
            refuse(volume)
    version = volume.commit_sync()
    again = pickle.loads(pickle.dumps(volume))

    assert (version.locator, None) == (again.locator, again.mount_path)
    volume.close_sync()


def test_many_threads_that_commit_at_once_make_one_version(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver) as path, ThreadPoolExecutor(8) as pool:
        write(path, {"a": "1"})
        versions = set(pool.map(lambda _: volume.commit_sync(), range(8)))
    [version] = versions

    assert {"a": "1"} == contents(version)
    assert 1 == len([name for name in objects() if name.startswith("versions/")])


def test_many_threads_that_mount_one_handle_get_one_mount(driver):
    version = committed()
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: version.mount_sync(driver=driver), range(8)))
    version.close_sync()

    assert 1 == len(paths)


def test_a_commit_while_a_thread_waits_for_the_handle_is_seen_by_it(driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"a": "1"})
    found = []
    with volume._handle.lock:
        thread = threading.Thread(target=lambda: found.append(volume.finalize_sync()))
        thread.start()
        version = volume.commit_sync()
    thread.join(60)

    assert [version] == found


@pytest.mark.fuse
def test_a_reader_whose_mount_was_taken_away_is_mounted_again():
    version = committed()
    subprocess.run(["umount", "-l", version.mount_sync(driver="kernel")], check=True)
    path = version.mount_sync(driver="kernel")

    assert "a" == (path / "a.txt").read_text()
    version.close_sync()


@pytest.mark.fuse
def test_a_writer_whose_mount_was_taken_away_goes_on():
    volume = Volume.new("data")
    path = volume.mount_sync(driver="kernel")
    write(path, {"a": "1"})
    subprocess.run(["umount", "-l", path], check=True)
    version = volume.commit_sync()
    again = volume.mount_sync()

    assert {"a": "1"} == contents(version)
    assert "1" == (again / "a").read_text()
    volume.close_sync()


def test_a_volume_is_mounted_on_demand_only_where_somebody_has_said_so(monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    version = committed("data", {"a": "1"})
    with pytest.raises(VolumeError, match="is not mounted"):
        os.fspath(version)
    with mounting_on_demand(), mounting_on_demand():
        assert "1" == (version / "a").read_text()
        assert os.fspath(version) == os.fspath(version.mount_path)
    version.unmount_sync()
    with pytest.raises(VolumeError, match="is not mounted"):
        os.fspath(version)


def test_a_writer_that_is_mounted_on_demand_can_be_written_and_committed(monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    volume = Volume.new("data")
    with mounting_on_demand():
        (volume / "a").write_text("1")
    assert {"a": "1"} == contents(volume.finalize_sync())


def test_the_text_of_a_volume_is_the_url_of_its_version_or_of_its_name():
    version = committed("data", {"a": "1"})
    root = f"vol://file+{version.bucket}/-"
    assert f"{root}/data~{version.version}" == str(version)
    assert f"{root}/other" == str(version.fork_sync("other"))
    assert "vol://s3+team/volumes/-/new" == str(Volume.new("new", "s3://team/volumes"))
    assert str(version) == str(type(version).model_validate(str(version)))
