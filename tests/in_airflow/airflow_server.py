"""A real Airflow, with all its processes: API server, scheduler with LocalExecutor, DAG processor, triggerer.

Why not `airflow standalone`: it makes the database anew, which is half of the time, and one more process.

Always true: home, port, database and volumes are its own; when this module says that it is there it can be asked; at
the end none of its processes is left, whatever they call themselves by then.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
READY_S, ENDED_S = 180, 150


class RealAirflow:
    """What tests ask of a running Airflow."""

    def __init__(self, url: str, home: Path, environment: Mapping[str, str]) -> None:
        self.url = url
        self.home = home
        self.environment = environment
        self.store = environment["VOLUME_BUCKET"]
        self._client = httpx.Client(base_url=url, timeout=30)

    def log_in(self) -> str:
        """Get a token, use it from here on, and return it."""
        token: str = self._client.get("/auth/token").raise_for_status().json()["access_token"]
        self._client.headers["Authorization"] = f"Bearer {token}"
        return token

    def get(self, path: str, **parameters: Any) -> Any:
        """What the API says at *path*, below /api/v2/."""
        return self._client.get(f"/api/v2/{path}", params=parameters).raise_for_status().json()

    def post(self, path: str, **body: Any) -> Any:
        """What the API answers to *body* at *path*, below /api/v2/."""
        return self._client.post(f"/api/v2/{path}", json=body).raise_for_status().json()

    def ui(self, path: str) -> Any:
        """What the API says to its own UI at *path*, below /ui/."""
        return self._client.get(f"/ui/{path}").raise_for_status().json()

    def start(self, dag_id: str, run_id: str, logical_date: str | None = None, **conf: Any) -> None:
        """Start a run, once the DAG processor has read the DAG."""
        _until(lambda: self._client.get(f"/api/v2/dags/{dag_id}").status_code == 200, READY_S, f"the DAG {dag_id}")
        what = {"dag_run_id": run_id, "logical_date": logical_date, "conf": conf}
        self._client.post(f"/api/v2/dags/{dag_id}/dagRuns", json=what).raise_for_status()

    def ended(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended; return its state."""

        def state() -> str | None:
            found = self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"]
            return found if found in {"success", "failed"} else None

        return _until(state, ENDED_S, f"the end of {dag_id} {run_id}")

    def run(self, dag_id: str, run_id: str, logical_date: str | None = None, **conf: Any) -> str:
        """Start a run and wait for its end; return its state."""
        self.start(dag_id, run_id, logical_date, **conf)
        return self.ended(dag_id, run_id)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """The value that a task has pushed, as the next one gets it."""
        from airflow.sdk.serde import deserialize

        from volume_airflow import envelopes

        envelopes.allow()  # the plugin has, in processes of Airflow
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return deserialize(self.get(path, map_index=map_index, deserialize=False, stringify=False)["value"])

    def logs(self) -> str:
        """What its processes have said, the end of each, and the logs of tasks."""
        files = [*self.home.glob("*.log"), *self.home.glob("logs/dag_id=*/**/*.log")]
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)


def _until(found: Any, seconds: float, what: str) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return value


def free_port() -> int:
    """A port that nobody listens on."""
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def environment_of(home: Path, port: int) -> dict[str, str]:
    """The environment of all processes of an Airflow at *home*."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "VOLUME_"))}
    settings = {
        "CORE__DAGS_FOLDER": str(home / "dags"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__FERNET_KEY": base64.urlsafe_b64encode(b"of tests, and of no other use...").decode(),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "CORE__TEST_CONNECTION": "Enabled",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "API__PORT": str(port),
        "API__HOST": "127.0.0.1",
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__WORKERS": "1",
        "API__SECRET_KEY": "of-tests",
        "API_AUTH__JWT_SECRET": "of-tests-and-of-no-other-use-0123456789-0123456789-0123456789-01",
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        "LOGGING__LOGGING_LEVEL": "INFO",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    return {
        **own,
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        "AIRFLOW_HOME": str(home),
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "true",
        "VOLUME_BUCKET": f"file://{home}/store",
        "VOLUME_STATE_DIR": str(home / "state"),
        "VOLUME_MOUNT_ROOT": str(home / "mounts"),
    }


@contextlib.contextmanager
def running_airflow(home: Path, database: Path, dags: list[Path]) -> Iterator[RealAirflow]:
    """An Airflow with *dags*, on a copy of the empty *database*, for the length of the block."""
    (home / "dags").mkdir(parents=True)
    for each in dags:
        shutil.copy(each, home / "dags")
    shutil.copy(database, home / "airflow.db")  # nobody has it open, so all of it is in the file
    port = free_port()
    environment = environment_of(home, port)
    airflow = RealAirflow(f"http://127.0.0.1:{port}", home, environment)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for name in COMPONENTS:
            with (home / f"{name}.log").open("wb") as log:
                command = [sys.executable, "-m", "airflow", name]
                started.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
        try:
            _until(lambda: _is_ready(airflow, started), READY_S, "Airflow")
            airflow.log_in()
        except BaseException:
            print(airflow.logs())
            raise
        yield airflow
    finally:
        airflow._client.close()
        _end(started)


def _is_ready(airflow: RealAirflow, started: list[subprocess.Popen[bytes]]) -> bool:
    for name, process in zip(COMPONENTS, started, strict=True):
        assert process.poll() is None, f"{name} has ended with {process.returncode}"
    try:
        health = airflow._client.get("/api/v2/monitor/health").json()
    except (httpx.TransportError, ValueError):
        return False
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    return all((health.get(each) or {}).get("status") == "healthy" for each in parts)


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    """End the processes and all that they have started, by their ids: they rename themselves."""
    sessions = {each.pid for each in started}
    for number, patience_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        for pid in _members(sessions):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        end = time.monotonic() + patience_s
        while _members(sessions) and time.monotonic() < end:
            for each in started:
                each.poll()
            time.sleep(0.05)
    for each in started:
        each.wait()
    assert [] == _members(sessions)


def _members(sessions: set[int]) -> list[int]:
    """The processes, other than zombies, that belong to one of *sessions*, which lasts when a parent has gone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            if after_name[0] != "Z" and int(after_name[3]) in sessions:
                found.append(int(stat.parent.name))
    return found
