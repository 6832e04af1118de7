"""The suite that every mount driver must pass, whoever wrote it.

Give a fixture `driver` (a volume_core.mount.request.Driver), and inherit:

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def driver(self):
            return MyDriver()

Everything is real: versions are made by real commits into a directory store, mounts are mounts, and the
judge is the oracle.  The suite runs as whoever runs it; a test leaves nothing mounted.
"""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from volume_core.errors import BusyError, MountError
from volume_core.mount.request import Driver, Mounted, MountRequest
from volume_core.parts import workcopies
from volume_core.testing.benches import DEADLINE_S, Bench, Made, Owner
from volume_core.testing.oracle import Tree, assert_same_tree, describe
from volume_core.testing.planting import BIG, change, plant

READ_ONLY = frozenset({errno.EROFS})


class DriverContract:
    """Fixture to give: `driver`.  What a driver cannot do is said by its class, and is in docs/posix.md.

    `read_only_errnos`: how a reader's mount refuses writes.  `name_bytes_max`: the longest name that can be made.
    `shown_inexactly`: fields of Described that a writer's mount may show otherwise than the version keeps
    them.  `copying_up_touches_directories`: opening a file of the base to write changes its directory's mtime.
    """

    read_only_errnos = READ_ONLY
    name_bytes_max = 255
    shown_inexactly: frozenset[str] = frozenset()
    copying_up_touches_directories = False

    def shown_read_only(self, tree: Tree) -> Tree:
        """Return how a reader's mount shows *tree*: as it is, unless the driver says otherwise."""
        return tree

    def assert_shown(self, was: Tree, shown: Mounted) -> None:
        """Fail unless the reader's mount *shown* shows what a writer's mount *was*."""
        assert_same_tree(self.shown_read_only(was), shown.path, ignore=self.shown_inexactly)

    @pytest.fixture
    def driver(self) -> Driver:
        """Return the driver under test."""
        pytest.fail("give a fixture `driver`")

    @pytest.fixture
    def bench(self, tmp_path: Path) -> Iterator[Bench]:
        """Return a place to work in, and leave nothing mounted."""
        made = Bench(tmp_path)
        try:
            yield made
        finally:
            made.close()

    @pytest.fixture
    def planted(self, tmp_path: Path) -> Path:
        """Return a directory with one of everything."""
        (tmp_path / "planted").mkdir()
        return plant(tmp_path / "planted")

    @pytest.fixture
    def version(self, bench: Bench, planted: Path) -> Made:
        """Return a version of `planted`."""
        return bench.version_of(planted)

    # -- reading

    def test_a_version_is_shown_as_it_was(self, driver: Driver, bench: Bench, version: Made, planted: Path) -> None:
        mounted = bench.mount(driver, bench.reader(version))

        assert_same_tree(self.shown_read_only(describe(planted)), mounted.path)
        assert driver.name == mounted.driver
        assert mounted.is_alive()

    def test_a_reader_takes_no_write(self, driver: Driver, bench: Bench, version: Made, planted: Path) -> None:
        path = bench.mount(driver, bench.reader(version)).path
        attempts: dict[str, Callable[[], object]] = {
            "open to write": lambda: os.open(path / "nothing", os.O_WRONLY),
            "create": lambda: os.open(path / "dir" / "created", os.O_WRONLY | os.O_CREAT),
            "mkdir": lambda: os.mkdir(path / "made"),
            "unlink": lambda: os.unlink(path / "one"),
            "rename": lambda: os.rename(path / "one", path / "other"),
            "rmdir": lambda: os.rmdir(path / "empty directory"),
            "symlink": lambda: os.symlink("x", path / "dir" / "link"),
            "link": lambda: os.link(path / "script", path / "dir" / "script"),
            "truncate": lambda: os.truncate(path / "script", 0),
        }

        for name, attempt in attempts.items():
            with pytest.raises(OSError, match=r"\[Errno") as refused:
                attempt()
            assert refused.value.errno in self.read_only_errnos, name
        assert_same_tree(self.shown_read_only(describe(planted)), path)

    def test_inodes_and_parents_are_consistent(self, driver: Driver, bench: Bench, version: Made) -> None:
        path = bench.mount(driver, bench.reader(version)).path

        assert os.path.samefile(path / "dir" / "sub" / "..", path / "dir")
        assert os.path.samefile(path / "dir" / "..", path)
        assert os.path.samefile(path / "one", path / "dir" / "two")
        assert 2 == os.stat(path / "one").st_nlink
        with os.scandir(path / "dir") as entries:
            numbers = {entry.name: entry.inode() for entry in entries}
        assert numbers == {name: os.lstat(path / "dir" / name).st_ino for name in os.listdir(path / "dir")}
        assert len(set(numbers.values())) == len(numbers)

    def test_a_file_can_be_mapped_and_a_program_run(self, driver: Driver, bench: Bench, version: Made) -> None:
        path = bench.mount(driver, bench.reader(version)).path

        with open(path / "dir" / "sub" / "big", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        with mapped:
            assert BIG == mapped[:]
        done = subprocess.run([path / "script"], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
        assert f"ran from {path}\n" == done.stdout

    def test_holes_are_found_without_reading(self, driver: Driver, bench: Bench, version: Made) -> None:
        path = bench.mount(driver, bench.reader(version)).path

        with open(path / "sparse", "rb") as file:
            assert 20 << 20 == os.lseek(file.fileno(), 0, os.SEEK_DATA)
            assert (20 << 20) + 4096 >= os.lseek(file.fileno(), 20 << 20, os.SEEK_HOLE) >= (20 << 20) + 6
            assert b"island" == os.pread(file.fileno(), 6, 20 << 20)

    def test_df_makes_sense(self, driver: Driver, bench: Bench, version: Made) -> None:
        found = os.statvfs(bench.mount(driver, bench.reader(version)).path)

        assert found.f_blocks * found.f_frsize > 0
        assert found.f_bavail <= found.f_bfree <= found.f_blocks
        assert found.f_ffree <= found.f_files
        assert found.f_namemax >= 255

    def test_sixty_four_read_at_once(self, driver: Driver, bench: Bench, version: Made, planted: Path) -> None:
        path = bench.mount(driver, bench.reader(version)).path
        names = [f"dir/file {number:02}" for number in range(40)] + ["dir/sub/big"]
        expected = {name: (planted / name).read_bytes() for name in names}

        def read_all(start: int) -> bool:
            turned = names[start % len(names) :] + names[: start % len(names)]
            return all(expected[name] == (path / name).read_bytes() for name in turned)

        with ThreadPoolExecutor(64) as pool:
            assert all(pool.map(read_all, range(64)))

    def test_one_version_is_mounted_twice(self, driver: Driver, bench: Bench, version: Made, planted: Path) -> None:
        one = bench.mount(driver, bench.reader(version, "one"))
        two = bench.mount(driver, bench.reader(version, "two"))
        one.unmount()

        assert one.id != two.id
        assert_same_tree(self.shown_read_only(describe(planted)), two.path)

    # -- writing

    def test_a_brand_new_volume_is_an_empty_directory(self, driver: Driver, bench: Bench) -> None:
        request = bench.writer(None)
        mounted = bench.mount(driver, request)

        assert [] == os.listdir(mounted.path)
        plant(mounted.path, name_bytes=self.name_bytes_max)
        made = bench.commit(request, mounted, None, None)

        (bench.home / "twin").mkdir()
        was = describe(plant(bench.home / "twin", name_bytes=self.name_bytes_max))
        shown = bench.mount(driver, bench.reader(made, "shown"))
        assert_same_tree(self.shown_read_only(was), shown.path)

    def test_a_writer_behaves_as_a_plain_directory(
        self, driver: Driver, bench: Bench, version: Made, planted: Path
    ) -> None:
        request = bench.writer(version)
        path = bench.mount(driver, request).path
        assert_same_tree(planted, path, ignore=self.shown_inexactly)

        for root in (planted, path):
            change(root)

        assert_same_tree(planted, path, ignore={"mtime_ns", *self.shown_inexactly})

    def test_what_was_written_is_in_the_next_version(
        self, driver: Driver, bench: Bench, version: Made, planted: Path
    ) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        for root in (planted, mounted.path):
            change(root)
        made = bench.commit(request, mounted, version, version)

        was = describe(mounted.path)
        shown = bench.mount(driver, bench.reader(made, "shown"))
        self.assert_shown(was, shown)
        assert_same_tree(self.shown_read_only(describe(planted)), shown.path, ignore={"mtime_ns"})

    def test_what_is_written_to_one_name_of_a_file_is_in_the_version_at_that_name(
        self, driver: Driver, bench: Bench, version: Made
    ) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        names = (mounted.path / "one", mounted.path / "dir" / "two")
        before = [name.read_bytes() for name in names]
        with open(names[0], "ab") as file:
            file.write(b"to the first")
        first = bench.commit(request, mounted, version, version)
        shown = bench.mount(driver, bench.reader(first, "first"))
        assert before[0] + b"to the first" == (shown.path / "one").read_bytes()
        assert names[1].read_bytes() == (shown.path / "dir" / "two").read_bytes()

        with open(names[1], "ab") as file:
            file.write(b"to the second")
        was = [name.read_bytes() for name in names]
        second = bench.commit(request, mounted, version, first)
        shown = bench.mount(driver, bench.reader(second, "second"))
        assert was == [(shown.path / "one").read_bytes(), (shown.path / "dir" / "two").read_bytes()]

    def test_commits_follow_each_other_under_one_mount(self, driver: Driver, bench: Bench, version: Made) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        first = bench.commit(request, mounted, version, version)
        assert version.locator == first.locator, "nothing changed: the same version"

        change(mounted.path)
        second = bench.commit(request, mounted, version, first)
        again = bench.commit(request, mounted, version, second)
        assert second.locator == again.locator

        (mounted.path / "new" / "first").unlink()
        os.rename(mounted.path / "moved", mounted.path / "moved again")
        with open(mounted.path / "dir" / "file 10", "ab") as file:
            file.write(b"once more")
            file.flush()
            third = bench.commit(request, mounted, version, second)  # while the file is open
        was = describe(mounted.path)
        self.assert_shown(was, bench.mount(driver, bench.reader(third, "shown")))

    def test_nothing_changed_though_everything_was_opened_to_write(
        self, driver: Driver, bench: Bench, version: Made, planted: Path
    ) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        for number in range(40):
            os.close(os.open(mounted.path / "dir" / f"file {number:02}", os.O_RDWR))
        times = os.stat(mounted.path / "dir" / "file 30")
        os.utime(mounted.path / "dir" / "file 30", ns=(times.st_atime_ns, times.st_mtime_ns))

        made = bench.commit(request, mounted, version, version)

        if not self.copying_up_touches_directories:
            assert version.locator == made.locator
            return
        tree = describe(bench.mount(driver, bench.reader(made, "shown")).path)
        assert_same_tree(self.shown_read_only(describe(planted)), tree, ignore={"mtime_ns"})
        assert all(tree[path].mtime_ns == was.mtime_ns for path, was in describe(planted).items() if was.kind == "file")

    def test_a_writer_is_unmounted_and_mounted_again(self, driver: Driver, bench: Bench, version: Made) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        change(mounted.path)
        was = describe(mounted.path)
        mounted.unmount()
        assert request.working_copy is not None
        request.working_copy.record = workcopies.load(bench.state, request.working_copy.id).record

        again = bench.mount(driver, request._replace(mount_path=bench.home / "again"))

        assert_same_tree(was, again.path, ignore=self.shown_inexactly)

    def test_uncommitted_work_is_recovered_without_a_mount(self, driver: Driver, bench: Bench, version: Made) -> None:
        request = bench.writer(version)
        mounted = bench.mount(driver, request)
        assert request.working_copy is not None
        request.working_copy.update(driver=mounted.driver, dialect=mounted.dialect)
        change(mounted.path)
        was = describe(mounted.path)
        mounted.unmount()

        left = workcopies.load(bench.state, request.working_copy.id)
        made = bench.commit(request._replace(working_copy=left), None, version, version)

        self.assert_shown(was, bench.mount(driver, bench.reader(made, "shown")))

    def test_two_writers_of_one_version_do_not_see_each_other(
        self, driver: Driver, bench: Bench, version: Made
    ) -> None:
        one, two = (bench.mount(driver, bench.writer(version, name)).path for name in ("one", "two"))

        (one / "script").write_bytes(b"one")
        (two / "nothing").unlink()

        assert b"#!/bin/sh" == (two / "script").read_bytes()[:9]
        assert (one / "nothing").exists()

    # -- the end

    def test_an_unmounted_path_is_free_and_empty(self, driver: Driver, bench: Bench, version: Made) -> None:
        (bench.home / "mnt").mkdir(mode=0o750)
        for request in (bench.reader(version), bench.writer(version)):
            mounted = bench.mount(driver, request)
            assert os.listdir(mounted.path)
            mounted.unmount()
            mounted.unmount()

            assert not mounted.is_alive()
            assert [] == os.listdir(bench.home / "mnt")
            assert 0o750 == os.stat(bench.home / "mnt").st_mode & 0o7777

    def test_an_open_file_is_named_and_a_lazy_unmount_lets_it_go_on(
        self, driver: Driver, bench: Bench, version: Made
    ) -> None:
        for request in (bench.reader(version, "read"), bench.writer(version, "written")):
            mounted = bench.mount(driver, request)
            with open(mounted.path / "dir" / "sub" / "big", "rb") as file:
                file.read(100)
                with pytest.raises(BusyError) as busy:
                    mounted.unmount()
                assert "dir/sub/big" in busy.value.paths
                assert mounted.is_alive()

                mounted.unmount(lazy=True)

                assert not os.path.exists(mounted.path) or [] == os.listdir(mounted.path)
                file.seek(0)
                assert BIG == file.read()

    def test_a_directory_with_something_in_it_is_not_hidden(self, driver: Driver, bench: Bench, version: Made) -> None:
        (bench.home / "mnt").mkdir()
        (bench.home / "mnt" / "precious").touch()

        with pytest.raises(MountError, match="not empty"):
            driver.mount(bench.reader(version))

        assert ["precious"] == os.listdir(bench.home / "mnt")

    def test_an_owner_that_was_killed_leaves_the_path_free(self, driver: Driver, bench: Bench, version: Made) -> None:
        for request in (bench.reader(version), bench.writer(version)):
            owner = Owner(driver, request)
            if request.working_copy is not None:
                (bench.home / "mnt" / "written").write_bytes(b"before the kill")
            owner.kill()

            mounted = _mount_in_time(bench, driver, bench.reader(version))
            assert (mounted.path / "script").exists()
            assert not (mounted.path / "written").exists()
            mounted.unmount()
            if request.working_copy is not None:
                left = workcopies.load(bench.state, request.working_copy.id)
                assert b"before the kill" == (left.upper / "written").read_bytes()


def _mount_in_time(bench: Bench, driver: Driver, request: MountRequest) -> Mounted:
    """Mount as soon as what was there is gone: whoever takes it down may still be about it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return bench.mount(driver, request)
        except MountError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
