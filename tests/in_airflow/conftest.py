"""What the adapter's tests run on: Airflow as it is installed, with a home of its own.

Where Airflow is missing nothing here is collected (tox -e airflow installs it).  A file that begins with imports of
`airflow.sdk` is of Airflow 3 alone, and not collected with 2.11 (tox -e airflow2); one that runs with both has its
names from volume_airflow.compat.

Always true: the settings are in the environment before Airflow is imported, so children have them too; no test touches
the user's own Airflow, and none leaves this machine; the database is made once a session, and each worker has a copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.util
import logging
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from airflow_kit import dag_runs, mounts_below

from volume_airflow import compat

_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
for _name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW__API_AUTH__JWT_SECRET": "a-key-of-these-tests" * 4,
    "AIRFLOW_HOME": str(_HOME),
    "AIRFLOW__CORE__FERNET_KEY": "YS1rZXktb2YtdGhlc2UtdGVzdHMtYS1rZXktb2YtdGg=",  # what triggers are given is encrypted
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DAGS_FOLDER": str(_HOME / "dags"),
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "SCARF_ANALYTICS": "false",
    "SQLALCHEMY_SILENCE_UBER_WARNING": "1",  # of Airflow 2
    "DO_NOT_TRACK": "true",
}
(_HOME / "dags").mkdir()

_TESTS = Path(__file__).parent.glob("test_*.py")
_HAS_NONE = importlib.util.find_spec("airflow") is None
_HAS_2 = not _HAS_NONE and not compat.IS_3
_ONLY_3 = re.compile(r"^(from|import) airflow\.sdk\b", re.MULTILINE)
collect_ignore = [each.name for each in _TESTS if _HAS_NONE or (_HAS_2 and _ONLY_3.search(each.read_text()))]
if _HAS_2:
    collect_ignore.append("test_airflow_browser.py")  # it has no pages, and what CI requires is no skip


def pytest_configure(config: pytest.Config) -> None:
    if not _HAS_2:
        return
    for noise in (
        "ignore::airflow.exceptions.RemovedInAirflow3Warning",
        # The pipes of its commands are left to be collected.
        "ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning",
        "ignore:.*is deprecated and will be removed in:DeprecationWarning",  # Flask, marshmallow
        # Its universal_pathlib has a list of protocols.
        "ignore:in a future version of UPath:PendingDeprecationWarning",
        "ignore:Could not find default for known protocol 'vol':UserWarning",
    ):
        config.addinivalue_line("filterwarnings", noise)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Loops that Airflow runs triggers in, and what they hold, are closed when they are collected, in whichever test
    that is."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for what in ("<socket.socket", "<function BaseEventLoop.__del__"):
                noise = f"ignore:Exception ignored in. {what}:pytest.PytestUnraisableExceptionWarning"
                item.add_marker(pytest.mark.filterwarnings(noise))


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


def _migrated_database(shared: Path) -> Path:
    """Return an empty database with all its tables, made once for all workers of this session."""
    database = shared / "airflow-empty.db"
    with open(shared / "airflow-empty.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            making = shared / "airflow-migrating.db"
            environment = os.environ | {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{making}"}
            command = [sys.executable, "-m", "airflow", "db", "migrate"]
            made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stdout + made.stderr
            _copied(making, database)
    return database


def _copied(source: Path, target: Path) -> None:
    # To copy the file is to lose what is still in its log.
    with (
        contextlib.closing(sqlite3.connect(source)) as read,
        contextlib.closing(sqlite3.connect(target)) as written,
        written,
    ):
        read.backup(written)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This worker's own database; needed by whatever is no task run by the kit."""
    base = tmp_path_factory.getbasetemp()
    _copied(_migrated_database(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base), _HOME / "airflow.db")
    return _HOME / "airflow.db"


if _HAS_2:

    @pytest.fixture(autouse=True)
    def database_of_tasks(database: Path) -> None:
        """A task's process of Airflow 2 has the database."""

    @pytest.fixture(autouse=True)
    def noise_of_tasks(silence: None, caplog: pytest.LogCaptureFixture):
        """What Airflow 2 logs of a task that fails, and of an operator that calls `execute` of the one it derives from,
        3 does not log by logging."""
        noise = ("Task failed with exception", "cannot be called outside TaskInstance!")

        def is_ours(record: logging.LogRecord) -> bool:
            return not record.getMessage().endswith(noise)

        caplog.handler.addFilter(is_ours)
        yield
        caplog.handler.removeFilter(is_ours)


@pytest.fixture(scope="session")
def airflow_server(tmp_path_factory: pytest.TempPathFactory):
    """A real Airflow with all its processes, which has the examples and what is in `server_dags`.

    Whoever uses it is in the group that runs in one worker: `pytest.mark.xdist_group("airflow_server")`.
    """
    from airflow_server import running_airflow

    base = tmp_path_factory.getbasetemp()
    database = _migrated_database(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
    here = Path(__file__).parent
    dags = [*(here / "server_dags").glob("*.py"), *(here.parents[1] / "examples" / "airflow").glob("*.py")]
    with running_airflow(tmp_path_factory.mktemp("airflow-server") / "home", database, dags) as airflow:
        yield airflow


@pytest.fixture
def run_dag(database: Path):
    """Run a DAG to its end as `dag.test()` does: `run_dag(dag, **options)` gives the run and the values of its XComs,
    by task, map index and key."""
    return dag_runs


@pytest.fixture(autouse=True)
def own_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_state: None):
    """Mounts without a path go below tmp_path; nothing is mounted there afterwards."""
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    yield
    end = time.monotonic() + 20
    while (left := mounts_below(tmp_path)) and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    for each in reversed(left):
        subprocess.run(["umount", "-l", each], check=False)
    assert [] == left
