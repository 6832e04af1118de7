"""A task that a real `kill -9` ends in its first try: the program of that try, and the DAG for those that follow.

python killed_task.py STATES LOCATOR      runs the first try, and is killed in it; what the task has noted is in STATES
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from airflow_kit import Supervisor, run_task

from volume_airflow.compat import DAG, task
from volume_core import ROVolume, RWVolume, Volume

seen: list[dict[str, str]] = []


def dag_of(version: ROVolume) -> DAG:
    """Return a DAG whose one task edits a fork of *version*, and is killed if nothing was written there before."""
    with DAG("killed", schedule=None) as dag:

        @task(retries=2)
        def work(data: RWVolume):
            root = data.mount_sync()
            seen.append({each.name: each.read_text() for each in root.iterdir()})
            if "committed" not in seen[-1]:
                (root / "committed").write_text("x")
                data.commit_sync("a checkpoint")
                (root / "uncommitted").write_text("x")
                os.kill(os.getpid(), signal.SIGKILL)
            return data

        work(version)
    return dag


class Persistent(Supervisor):
    """A supervisor whose states outlive it, in the file *path*."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        if path.exists():
            self.runs.add(("killed", "a-run"))
            self.states = {tuple(key): value for key, value in json.loads(path.read_text())}
        self._write()

    def _write(self) -> None:
        self.path.write_text(json.dumps(list(self.states.items())))

    def send(self, msg: object) -> object:
        """Answer *msg*, and write the states down."""
        answer = super().send(msg)
        self._write()
        return answer


def tried(number: int, version: ROVolume, states: Path) -> tuple[Supervisor, object]:
    """Run the task's try *number*."""
    supervisor = Persistent(states)
    return supervisor, run_task(dag_of(version).get_task("work"), supervisor, try_number=number, max_tries=3)


if __name__ == "__main__":
    tried(1, Volume.from_locator_sync(sys.argv[2]), Path(sys.argv[1]))
