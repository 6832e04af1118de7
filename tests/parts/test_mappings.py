"""Shared mappings are found wherever a process may have made them."""

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from overlay_kit import OVERLAY_OPTIONS, beside, kernel_overlay, public_place
from overlay_operations import write

from volume_core.parts import mappings
from volume_core.parts.mappings import Mapped, file_system, mapped_files, write_back_all
from volume_core.testing.users import as_nobody

MAPPER = """
    import mmap, os, sys
    os.chdir(sys.argv[1])
    file = os.open(sys.argv[2], os.O_RDWR)
    memory = mmap.mmap(file, 0)
    os.close(file)
    print("ready", flush=True)
    sys.stdin.read()
"""


def found(root, mount_path=None, inodes=()):
    return mapped_files(Path(root), mount_path, lambda: dict(inodes)).paths


@contextlib.contextmanager
def mapped(path, **how):
    fd = os.open(path, os.O_RDWR)
    with contextlib.closing(mmap.mmap(fd, 0, **how)) as memory:
        os.close(fd)
        yield memory


@pytest.mark.parametrize(
    ("how", "counts"),
    [
        ({}, True),
        ({"prot": mmap.PROT_READ, "flags": mmap.MAP_SHARED}, True),  # mprotect may make it writable again
        ({"flags": mmap.MAP_PRIVATE}, False),
    ],
)
def test_what_this_process_maps(tmp_path, how, counts):
    write(tmp_path / "file", b"x")
    write(tmp_path / "other", b"x")
    with mapped(tmp_path / "file", **how):
        assert counts == (b"file" in found(tmp_path))
        assert b"other" not in found(tmp_path)
    assert frozenset() == found(tmp_path)


@pytest.mark.parametrize("name", [b"a b  c", b"line\nfeed", b"back\\012slash", b"\xff\xfe", b"x (deleted)", b"n" * 255])
def test_any_name(tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    write(path, b"x")
    with mapped(path):
        assert name in found(tmp_path)


def test_what_another_process_maps(tmp_path):
    (tmp_path / "in/here").mkdir(parents=True)
    write(tmp_path / "in/here/file", b"x")
    with beside(MAPPER, tmp_path, "in/here/file"):
        assert {b"in/here/file"} == found(tmp_path)
        assert {b"here/file"} == found(tmp_path / "in")
        assert frozenset() == found(tmp_path / "in/he" if (tmp_path / "in/he").mkdir() is None else "")


def test_the_tree_may_be_named_by_a_symlink(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    write(tmp_path / "tree/file", b"x")
    with mapped(tmp_path / "tree/file"):
        assert {b"file"} == found(tmp_path / "link")


@pytest.mark.fuse
def test_what_is_mapped_through_an_overlay(tmp_path):
    with kernel_overlay(tmp_path, OVERLAY_OPTIONS["kernel"]) as merged:
        write(merged / "file", b"x")
        with mapped(merged / "file"):
            assert {b"file"} == found(tmp_path / "upper", merged)
            assert {b"file"} == found(tmp_path / "upper", merged, {}.items())


@pytest.mark.fuse
@pytest.mark.parametrize("through", ["directory", "overlay"])
def test_what_is_mapped_under_another_path_in_another_namespace(tmp_path, through, monkeypatch):
    real = mappings._all_maps
    monkeypatch.setattr(mappings, "_all_maps", lambda: (data for data in real() if data is not None))
    with contextlib.ExitStack() as stack:
        if through == "overlay":
            here = stack.enter_context(kernel_overlay(tmp_path, OVERLAY_OPTIONS["kernel"]))
            root = tmp_path / "upper"
        else:
            root = here = tmp_path / "tree"
            root.mkdir()
        (tmp_path / "elsewhere").mkdir()
        write(here / "file", b"x")
        inode = os.stat(root / "file").st_ino
        shell = f'mount --bind "{here}" "{tmp_path}/elsewhere" && exec "$@"'
        program = [
            sys.executable,
            "-c",
            "\n".join(line[4:] for line in MAPPER.splitlines()),
            tmp_path / "elsewhere",
            "file",
        ]
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh", *program]
        process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(process.kill)
        assert "ready" == process.stdout.readline().strip()

        assert Mapped(frozenset({b"file"}), complete=True) == mapped_files(root, here, lambda: {inode: b"file"})
        # Unless path or inode explains it: on a device that is our mount's alone it must be ours.
        assert (through == "directory") == mapped_files(root, here, dict).complete


def test_one_that_may_not_be_looked_into_makes_the_answer_incomplete(tmp_path, monkeypatch):
    monkeypatch.setattr(mappings, "_all_maps", lambda: iter([b"", None]))
    assert Mapped(frozenset(), complete=False) == mapped_files(tmp_path, None, dict)

    monkeypatch.setattr(mappings, "_all_maps", lambda: iter([b""]))
    assert Mapped(frozenset(), complete=True) == mapped_files(tmp_path, None, dict)


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_may_not_look_into_roots_processes():
    script = "import sys; from pathlib import Path; from volume_core.parts.mappings import mapped_files; " \
        "print(mapped_files(Path(sys.argv[1]), None, dict).complete)"  # fmt: skip
    with public_place() as place:
        command = as_nobody([sys.executable, "-c", script, str(place)])
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ("False\n", "") == (done.stdout, done.stderr)


def test_processes_that_are_not_even_listed_make_the_answer_incomplete(tmp_path, monkeypatch):
    real = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: [n for n in real(path) if n != "1"] if path == "/proc" else real(path)
    )

    assert not mapped_files(tmp_path, None, dict).complete


def test_the_type_of_a_file_system(tmp_path):
    assert "tmpfs" == file_system(Path("/dev/shm"))
    assert "proc" == file_system(Path("/proc"))
    assert file_system(tmp_path) not in ("", "tmpfs", "proc")


def test_writing_all_back(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    write_back_all(fd)
    os.close(fd)

    with pytest.raises(OSError, match="Bad file descriptor"):
        write_back_all(fd)
