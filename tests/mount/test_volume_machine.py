"""Random file operations on a mounted writer and on a plain directory, with commits, remounts and forks between.

The plain directory is the specification.  Modification times, which the two trees get at different
moments, are compared where they must be equal: before a commit and after the remount of it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.volumes import RWVolume, Volume

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

NAMES = st.sampled_from([b"a", b"b", b"c", b"long" * 40, b"\xff\xfe", b"with space\n"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
DATA = st.sampled_from([b"", b"x", b"hello\n" * 100, b"block" * 2000, bytes(5000)])
OFFSETS = st.sampled_from([0, 1, 4096, 70_000])


class VolumeMachine(RuleBasedStateMachine):
    """One line of versions of one volume, always mounted, beside the plain directory."""

    driver = "kernel"

    @initialize()
    def start(self):
        self.home = Path(tempfile.mkdtemp(prefix="volume-machine-"))
        self.plain = self.home / "plain"
        self.plain.mkdir(mode=0o755)
        self.volume: RWVolume = Volume.new("machine", bucket=f"file://{self.home}/store")
        self.mount()

    def teardown(self):
        if hasattr(self, "home"):
            self.volume.abandon_sync()
            shutil.rmtree(self.home)

    def mount(self):
        self.path = self.volume.mount_sync(self.home / "mounted", driver=self.driver)
        # A link between names of the base ends when one of them is copied up (docs/posix.md), so what has
        # several names now is left alone until it is gone.
        described = describe(self.plain)
        self.linked = {path for path, found in described.items() if found.links}

    def both(self, path: bytes) -> tuple[bytes, bytes]:
        return os.path.join(os.fsencode(self.plain), path), os.path.join(os.fsencode(self.path), path)

    def kind(self, path: bytes) -> str | None:
        """What the specification has at *path*; "held" for what must not be touched."""
        plain, _ = self.both(path)
        if path in self.linked and os.path.lexists(plain):
            return "held"
        if os.path.islink(plain):
            return "symlink"
        if os.path.isdir(plain):
            return "directory"
        if os.path.lexists(plain):
            return "file" if os.path.isfile(plain) else "other"
        return None

    def holds_linked(self, path: bytes) -> bool:
        return any(held == path or held.startswith(path + b"/") for held in self.linked)

    def may_make(self, path: bytes) -> bool:
        parent = os.path.dirname(path)
        return self.kind(path) is None and (not parent or self.kind(parent) == "directory")

    @rule(path=PATHS, data=DATA)
    def write(self, path, data):
        if self.may_make(path) or self.kind(path) == "file":
            for place in self.both(path):
                with open(place, "wb") as file:
                    file.write(data)

    @rule(path=PATHS, data=DATA, offset=OFFSETS)
    def write_at(self, path, data, offset):
        if self.kind(path) == "file":
            for place in self.both(path):
                with open(place, "r+b") as file:
                    file.seek(offset)
                    file.write(data)

    @rule(path=PATHS, size=OFFSETS)
    def truncate(self, path, size):
        if self.kind(path) == "file":
            for place in self.both(path):
                os.truncate(place, size)

    @rule(path=PATHS)
    def open_for_writing_and_write_nothing(self, path):
        if self.kind(path) == "file":
            for place in self.both(path):
                os.close(os.open(place, os.O_RDWR))

    @rule(path=PATHS)
    def make_directory(self, path):
        if self.may_make(path):
            for place in self.both(path):
                os.mkdir(place)

    @rule(path=PATHS, points_at=st.sampled_from([b"a", b"/nowhere", b"x" * 3000]))
    def make_symlink(self, path, points_at):
        if self.may_make(path):
            for place in self.both(path):
                os.symlink(points_at, place)

    @rule(path=PATHS)
    def make_fifo(self, path):
        if self.may_make(path):
            for place in self.both(path):
                os.mkfifo(place)

    @rule(path=PATHS)
    def remove(self, path):
        kind = self.kind(path)
        if kind is None:
            return
        for place in self.both(path):
            if kind == "directory":
                shutil.rmtree(place)
            else:
                os.unlink(place)
        self.linked = {held for held in self.linked if held != path and not held.startswith(path + b"/")}

    @rule(source=PATHS, goal=PATHS)
    def rename(self, source, goal):
        if self.kind(source) in (None, "held") or not self.may_make(goal) or goal.startswith(source + b"/"):
            return
        if self.kind(source) == "directory" and self.holds_linked(source):
            return
        for here, there in zip(self.both(source), self.both(goal), strict=True):
            os.rename(here, there)

    @rule(source=PATHS, goal=PATHS)
    def link(self, source, goal):
        if self.kind(source) == "file" and self.may_make(goal):
            for here, there in zip(self.both(source), self.both(goal), strict=True):
                os.link(here, there)

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o755, 0o4711]))
    def change_mode(self, path, mode):
        if self.kind(path) in ("file", "directory"):
            for place in self.both(path):
                os.chmod(place, mode)

    @rule(path=PATHS, owner=st.sampled_from([0, 1234]))
    def change_owner(self, path, owner):
        if self.kind(path) not in (None, "held"):
            for place in self.both(path):
                os.lchown(place, owner, owner)

    @rule(path=PATHS, mtime_ns=st.sampled_from([0, 1, 1_600_000_000_123_456_789]))
    def change_time(self, path, mtime_ns):
        if self.kind(path) not in (None, "held", "symlink"):
            for place in self.both(path):
                os.utime(place, ns=(mtime_ns, mtime_ns))

    @rule(path=PATHS, value=st.sampled_from([b"", b"v" * 200]))
    def set_xattr(self, path, value):
        if self.kind(path) in ("file", "directory"):
            for place in self.both(path):
                os.setxattr(place, b"user.note", value)

    @rule()
    def commit(self):
        version = self.volume.commit_sync()

        assert version.locator == self.volume.commit_sync().locator  # nothing changed: the same version
        assert_same_tree(self.plain, self.path, ignore={"mtime_ns"})

    @rule()
    def finalize_and_go_on_with_a_fork(self):
        before = describe(self.path)
        version = self.volume.finalize_sync()

        with version.mounted_sync() as seen:
            assert_same_tree(before, seen)
            assert_same_tree(self.plain, seen, ignore={"mtime_ns"})

        self.volume = version.fork_sync("machine")
        self.mount()
        assert_same_tree(before, self.path)


@pytest.mark.parametrize("driver", ["kernel", "copy"])
def test_a_volume_is_what_a_directory_is(driver):
    machine = type("Machine", (VolumeMachine,), {"driver": driver})
    run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=30, deadline=None))
