"""All three drivers pass one suite; those that need no privilege pass it without."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from volume_core.errors import MountError
from volume_core.mount.copying import CopyDriver
from volume_core.mount.fuse_overlay import FuseOverlayDriver
from volume_core.mount.kernel import KernelDriver
from volume_core.parts.trees import remove_tree
from volume_core.testing.benches import Bench
from volume_core.testing.drivers import READ_ONLY, DriverContract, Tree
from volume_core.testing.oracle import assert_same_tree
from volume_core.testing.users import as_nobody

IS_ROOT = os.geteuid() == 0


@pytest.mark.fuse
class TestKernel(DriverContract):
    @pytest.fixture
    def driver(self):
        return KernelDriver()


class TestFuseOverlay(DriverContract):
    pytestmark = [pytest.mark.fuse] if IS_ROOT else []
    # fuse-overlayfs keeps four bytes for ".wh.", caches times, knows no holes, and forgets links it copied.
    name_bytes_max = 251
    shown_inexactly = frozenset({"mtime_ns", "data", "links"})
    copying_up_touches_directories = True

    @pytest.fixture
    def driver(self):
        return FuseOverlayDriver()


class TestCopy(DriverContract):
    # Who may not mount takes every write bit away, which all but root obey.
    read_only_errnos = READ_ONLY if IS_ROOT else frozenset({13})

    def shown_read_only(self, tree: Tree) -> Tree:
        if IS_ROOT:
            return tree
        return {path: each._replace(mode=each.mode & ~0o222) for path, each in tree.items()}

    @pytest.fixture
    def driver(self):
        return CopyDriver()


@pytest.mark.fuse
def test_what_fuse_overlayfs_would_take_for_a_deletion_is_not_given_to_it(tmp_path):
    bench = Bench(tmp_path)
    (tmp_path / "tree" / "dir").mkdir(parents=True)
    (tmp_path / "tree" / "dir" / ".wh.file").write_bytes(b"precious")
    (tmp_path / "tree" / "dir" / "file").write_bytes(b"x")
    version = bench.version_of(tmp_path / "tree")

    with pytest.raises(MountError, match=r"dir/\.wh\.file"):
        FuseOverlayDriver().mount(bench.writer(version))

    for driver in (KernelDriver(), CopyDriver()):
        mounted = bench.mount(driver, bench.writer(version, driver.name))
        assert_same_tree(tmp_path / "tree", mounted.path)
    shown = bench.mount(FuseOverlayDriver(), bench.reader(version, "read"))
    assert_same_tree(tmp_path / "tree", shown.path)
    bench.close()


@pytest.fixture
def open_place():
    """A directory that every user can reach: pytest closes its own again and again."""
    place = Path(tempfile.mkdtemp(prefix="volume-test-"))
    place.chmod(0o711)
    os.chown(place, 65534, 65534)
    yield place
    remove_tree(place)


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.parametrize("suite", ["TestCopy", "TestFuseOverlay"])
def test_without_any_privilege(suite, open_place):
    command = [
        sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--basetemp", str(open_place / "tmp"),
        "--rootdir", str(Path(__file__).parents[2]), f"{__file__}::{suite}",
    ]  # fmt: skip

    done = subprocess.run(
        as_nobody(command), capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "HOME": str(open_place), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_every_line_of_the_document_names_a_test_of_the_suite():
    document = Path(__file__).parents[2] / "docs" / "posix.md"
    named = set(re.findall(r"`DriverContract\.(test_\w+)`", document.read_text()))

    assert named
    assert set() == {name for name in named if not hasattr(DriverContract, name)}
