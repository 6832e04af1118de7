"""What the adapter's tests run on: Prefect as it is installed, and for those that need one, a real server on loopback.

Where Prefect is missing nothing here is collected (tox -e prefect installs it).

Always true: the settings are in the environment before Prefect is imported, so children have them too; no test touches
the user's own Prefect, and none leaves this machine; a test that did not ask for `server` finds nobody at the API's
address, so that what shall work without a server is seen to.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from prefect_kit import mounts_below

collect_ignore_glob: list[str] = []
if importlib.util.find_spec("prefect") is None:
    collect_ignore_glob = ["test_*.py"]

# A server of these settings is up in about 10 seconds, half of what it is otherwise.
_QUIET_SERVICES = ("SCHEDULER", "LATE_RUNS", "FOREMAN", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP")
_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Otherwise every collection that is installed is imported: clouds, Kubernetes, Docker.
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_CLIENT_MAX_RETRIES": "2",  # a server whose database is busy answers 503
    **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in _QUIET_SERVICES},
}
_PATIENCE_S = 180.0  # two cores may have other work


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


_HOME = Path(tempfile.mkdtemp(prefix="prefect-home-"))
_PORT = _free_port()
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ |= _SETTINGS | {"PREFECT_HOME": str(_HOME), "PREFECT_API_URL": f"http://127.0.0.1:{_PORT}/api"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Connections of Prefect's own clients are closed when they are collected, in whichever test that is."""
    leaks = "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(leaks))


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def _migrated_database(shared: Path) -> Path:
    """Return an empty database with all its tables, made once for all workers of this session."""
    database = shared / "prefect-empty.db"
    with open(shared / "prefect-empty.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            home = shared / "prefect-migrating"
            command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
            made = subprocess.run(
                command, env=_alone() | {"PREFECT_HOME": str(home)}, capture_output=True, text=True, check=False
            )
            assert made.returncode == 0, made.stdout + made.stderr
            (home / "prefect.db").rename(database)
    return database


def _alone() -> dict[str, str]:
    """The environment without the API's address: a server is none's client."""
    return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory):
    """A real server for this session; its API's URL."""
    base = tmp_path_factory.getbasetemp()
    shutil.copy(_migrated_database(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base), _HOME / "prefect.db")
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    log = base / "prefect-server.log"
    with open(log, "w") as said:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(_PORT), "--log-level", "warning"],
            env=_alone() | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(process, log)
        yield os.environ["PREFECT_API_URL"]
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _PATIENCE_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{os.environ['PREFECT_API_URL']}/health"):
            return
        assert process.poll() is None, f"the server ended: {log.read_text()}"
        assert time.monotonic() < end, f"the server did not answer in {_PATIENCE_S} s: {log.read_text()}"
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def own_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """Mounts without a path go below tmp_path; nothing is mounted there afterwards."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield
    end = time.monotonic() + 20
    while (left := mounts_below(tmp_path)) and time.monotonic() < end:
        gc.collect()  # a version stays mounted as long as anything of its run is there
        time.sleep(0.05)
    for each in reversed(left):
        subprocess.run(["umount", "-l", each], check=False)
    assert [] == left
