"""Uncommitted work is found again after anything, and nobody deletes it by accident."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from volume_core.errors import BusyError, NotFoundError, VolumeError
from volume_core.parts import workcopies
from volume_core.parts.state import State
from volume_core.parts.trees import disk_usage_bytes, remove_tree
from volume_core.parts.workcopies import create, left_behind, list_all, load, survey, sweep


@pytest.fixture
def state(tmp_path):
    return State.at(tmp_path / "state")


def make(state, **fields):
    return create(state, **{"volume": "v", "store_url": "file:///store", **fields})


def test_a_copy_is_found_again_as_it_was_made(state):
    made = make(
        state,
        base="file:///store/versions/v/0.json",
        driver="copy",
        dialect="plain",
        mount_path=os.fsdecode(b"/mnt/\xff"),
        notes={"a": "b"},
    )

    found = load(state, made.id)

    assert made.record == found.record
    assert made.base == found.parent
    assert os.fsdecode(b"/mnt/\xff") == found.mount_path
    assert found.upper.is_dir()
    assert found.work.is_dir()
    assert found.same_boot
    assert [made.id] == [copy.id for copy in list_all(state)]


def test_an_update_is_seen_by_the_next_who_looks(state, tmp_path):
    made = make(state)

    made.update(parent="file:///store/versions/v/1.json", tree=str(tmp_path / "tree"))

    found = load(state, made.id)
    assert "file:///store/versions/v/1.json" == found.parent
    assert made.path / "upper" == found.upper
    (tmp_path / "tree").mkdir()
    assert made.path / "upper" == found.upper, "another's directory at the same path"
    made.update(tree_inode=(tmp_path / "tree").stat().st_ino)
    assert tmp_path / "tree" == load(state, made.id).upper
    assert {"captured.sqlite"} == {found.captured_path.name}
    assert sorted(["lock", "record.json", "upper", "work"]) == sorted(os.listdir(made.path))


def test_copies_are_listed_in_the_order_in_which_they_were_made(state):
    made = [make(state).id for _ in range(5)]

    assert made == [copy.id for copy in list_all(state)]


def test_there_are_none_where_there_is_no_state(state):
    assert [] == list_all(state)
    assert ([], []) == survey(state)
    sweep(state)


@pytest.mark.parametrize("name", ["", ".", "..", "no-such", "../work", ".making-x"])
def test_asking_for_what_is_not_there(state, name):
    make(state)
    (state.work / ".making-x").mkdir()

    with pytest.raises(NotFoundError, match="no working copy"):
        load(state, name)


def test_another_boot_is_noticed(state, monkeypatch):
    made = make(state)
    assert made.same_boot

    monkeypatch.setattr(workcopies, "boot_id", lambda: "another")

    assert not load(state, made.id).same_boot


DAMAGES = {
    "cut short": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "no JSON": lambda data: b"\xff\xfe",
    "another format": lambda data: data.replace(b"working-copy/1", b"working-copy/2"),
    "a list": lambda data: b"[]",
    "a field missing": lambda data: json.dumps({k: v for k, v in json.loads(data).items() if k != "volume"}).encode(),
    "a field more": lambda data: json.dumps({**json.loads(data), "colour": 1}).encode(),
    "a field of another kind": lambda data: json.dumps({**json.loads(data), "tree": 7}).encode(),
    "another's": lambda data: json.dumps({**json.loads(data), "id": "somebody"}).encode(),
}


@pytest.mark.loud
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_record_is_reported_and_its_files_are_left_alone(state, damage, caplog):
    whole, broken = make(state), make(state)
    (broken.upper / "work").write_bytes(b"of a week")
    record = broken.path / "record.json"
    record.write_bytes(DAMAGES[damage](record.read_bytes()))

    found = survey(state)

    assert [whole.id] == [copy.id for copy in found.copies]
    assert [broken.path] == [each.path for each in found.broken]
    assert "record.json" in found.broken[0].reason
    assert [whole.id] == [copy.id for copy in list_all(state)]
    assert "left alone" in caplog.text
    with pytest.raises(VolumeError, match="untouched"):
        load(state, broken.id)
    sweep(state)
    assert b"of a week" == (broken.upper / "work").read_bytes()


def test_only_one_may_hold_a_copy(state):
    made = make(state)
    with made.lock() as held:
        assert held.held
        assert made.in_use
        assert load(state, made.id).in_use
        with pytest.raises(BusyError, match=f"in use by process {os.getpid()}"):
            load(state, made.id).lock()
        with pytest.raises(BusyError, match="this handle"):
            made.lock()
        with pytest.raises(BusyError):
            load(state, made.id).discard()
        assert made.upper.is_dir()

    assert not made.in_use
    load(state, made.id).lock().close()


def test_looking_does_not_refuse_another(state):
    made = make(state)
    looking = load(state, made.id)

    for _ in range(200):
        made.lock().close()
        assert not looking.in_use


HOLDER = """
    import sys
    from volume_core.parts.state import State
    from volume_core.parts.workcopies import load
    held = load(State.at({root!r}), {id!r}).lock()
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_leaves_its_copy_behind_for_others(state):
    made = make(state)
    program = textwrap.dedent(HOLDER.format(root=str(state.root), id=made.id))
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert b"held\n" == process.stdout.readline()
        assert made.in_use
        assert [] == left_behind(state)

        process.send_signal(signal.SIGKILL)
        process.wait(10)

    assert [made.id] == [copy.id for copy in left_behind(state)]
    made.lock().close()


def _wait(connection):
    connection.send("there")
    connection.recv()


def test_a_forked_worker_does_not_keep_the_lock(state):
    made = make(state)
    ours, theirs = multiprocessing.Pipe()
    held = made.lock()
    worker = multiprocessing.get_context("fork").Process(target=_wait, args=(theirs,))
    worker.start()
    assert "there" == ours.recv()
    assert load(state, made.id).in_use, "the fork must not release it either"

    held.close()

    assert not load(state, made.id).in_use
    ours.send("go")
    worker.join(10)
    for connection in (ours, theirs):
        connection.close()
    worker.close()


def test_discarding_deletes_all_of_it(state, tmp_path):
    made = make(state)
    (made.upper / "closed").mkdir(mode=0o000)
    (tmp_path / "tree" / "below").mkdir(parents=True)
    made.update(tree=str(tmp_path / "tree"), tree_inode=(tmp_path / "tree").stat().st_ino)

    made.discard()

    assert [] == os.listdir(state.work)
    assert not (tmp_path / "tree").exists()
    assert [] == list_all(state)


def test_discarding_leaves_what_took_the_place_of_its_tree(state, tmp_path):
    made = make(state)
    (tmp_path / "tree").mkdir()
    made.update(tree=str(tmp_path / "tree"), tree_inode=(tmp_path / "tree").stat().st_ino)
    os.rename(tmp_path / "tree", tmp_path / "moved away")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "another's").write_bytes(b"x")

    made.discard()

    assert [] == list_all(state)
    assert (tmp_path / "tree" / "another's").exists()


def test_a_discard_cut_short_is_finished_later_and_not_listed(state, monkeypatch):
    made = make(state)
    (made.upper / "file").write_bytes(b"x")
    with monkeypatch.context() as patched:
        patched.setattr(workcopies, "remove_tree", lambda *_, **__: (_ for _ in ()).throw(OSError("disk")))
        with pytest.raises(OSError, match="disk"):
            made.discard()

    assert [] == list_all(state)
    assert 1 == len(os.listdir(state.work))
    sweep(state)
    assert [] == os.listdir(state.work)


def test_a_sweep_leaves_what_is_being_made(state):
    make(state).discard()
    unnamed = state.work / ".making-x"
    unnamed.mkdir()
    sweep(state)
    assert unnamed.exists()
    (unnamed / "lock").touch()  # and its maker is about to take it
    sweep(state)
    assert unnamed.exists()

    os.utime(unnamed, (0, 0))
    sweep(state)

    assert not unnamed.exists()


def test_the_size_counts_blocks_and_each_inode_once(state):
    made = make(state)
    empty = made.size_bytes()
    (made.upper / "file").write_bytes(b"x" * 40960)
    os.link(made.upper / "file", made.upper / "again")
    with open(made.upper / "sparse", "wb") as file:
        file.truncate(1 << 30)

    assert empty + 40960 == made.size_bytes()
    assert 0 == disk_usage_bytes(state.root / "nothing")


def deep(root, depth):
    fd = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_a_tree_of_three_thousand_levels_is_measured_and_removed(tmp_path):
    (tmp_path / "tree").mkdir()
    deep(tmp_path / "tree", 3000)

    assert disk_usage_bytes(tmp_path / "tree") >= 3000 * 4096
    remove_tree(tmp_path / "tree")
    assert [] == os.listdir(tmp_path)


def test_removing_follows_no_symlink(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_bytes(b"x")
    (tmp_path / "tree").mkdir()
    os.symlink("../precious", tmp_path / "tree" / "link")
    os.symlink("precious", tmp_path / "root")

    remove_tree(tmp_path / "tree")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "root")

    assert b"x" == (tmp_path / "precious" / "file").read_bytes()


def test_the_root_can_be_kept(tmp_path):
    (tmp_path / "below" / "more").mkdir(parents=True)

    remove_tree(tmp_path, keep_root=True)
    remove_tree(tmp_path / "nothing")

    assert [] == os.listdir(tmp_path)


def test_what_root_may_not_pass_for_want_of_a_capability_is_opened_up_and_removed(tmp_path):
    """An overlay's own work directory has no modes at all, and a container may drop CAP_DAC_OVERRIDE."""
    (tmp_path / "doomed" / "shut").mkdir(parents=True)
    (tmp_path / "doomed" / "shut" / "file").touch()
    (tmp_path / "doomed" / "shut").chmod(0)
    program = (
        "import sys, pathlib; from volume_core.parts.trees import remove_tree; remove_tree(pathlib.Path(sys.argv[1]))"
    )
    less = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []

    subprocess.run([*less, sys.executable, "-c", program, str(tmp_path / "doomed")], check=True, timeout=60)

    assert not (tmp_path / "doomed").exists()
