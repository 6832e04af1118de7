"""What every test gets: silence, a state directory of its own, and honest skips.

Always true: a test that logs a warning it did not announce with @pytest.mark.loud fails; no test reads
or writes the user's own volumes; a test that needs something this machine lacks is skipped with the
reason, and fails instead where VOLUME_TEST_REQUIRE names its marker, so that a whole kind of test can
not vanish unseen.
"""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from volume_core.storage import probing

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("VOLUME_TEST_HYPOTHESIS", "default"))


def _lacks_fuse() -> str | None:
    """Why no real mount can be made here, or None."""
    if not Path("/dev/fuse").exists():
        return "/dev/fuse is missing: give the container the device (or modprobe fuse)"
    if os.geteuid() != 0:
        return "the mount tests run as root (they become other users themselves)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _lacks_fuse()
    required = os.environ.get("VOLUME_TEST_REQUIRE", "").split(",")
    if reason is None or "fuse" in required:
        return
    for item in items:
        if item.get_closest_marker("fuse"):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """What is alive by now stays alive: the collection after each test need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """A skip of a required kind is a failure."""
    outcome = yield
    report = outcome.get_result()
    required = set(os.environ.get("VOLUME_TEST_REQUIRE", "").split(",")) - {""}
    if report.skipped and required & {mark.name for mark in item.iter_markers()} and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"required by VOLUME_TEST_REQUIRE, but skipped: {report.longrepr}"


@pytest.fixture(autouse=True)
def silence(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture):
    """Fail a test that logs a warning it did not announce with @pytest.mark.loud."""
    yield
    if request.node.get_closest_marker("loud"):
        return
    for record in caplog.get_records("call"):
        assert record.levelno < logging.WARNING, f"unannounced: {record.name}: {record.getMessage()}"


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Every test has a state directory of its own, and none of the user's settings."""
    for name in list(os.environ):
        if name.startswith("VOLUME_") and not name.startswith("VOLUME_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "volume-state"))
    # A test's server is another than that of the test before, and may have the same URL.
    monkeypatch.setattr(probing, "_known", {})
    yield
    gc.collect()  # a handle that leaks surfaces in the test that leaked it
