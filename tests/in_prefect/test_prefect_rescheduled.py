"""A flow run whose pod is evicted: what was there on SIGTERM is committed, and another process goes on from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect_kit import made, texts

from volume_core import Volume

SCRIPT = """
import time
from pathlib import Path
from prefect import flow, task
from volume_core import RWVolume
from volume_prefect import volumes

@volumes(retry="resume", on_terminate="commit")
@task(persist_result=False)
def work(data: RWVolume, ready: str) -> RWVolume:
    root = data.mount_sync(driver="copy")
    was = sorted(path.name for path in root.iterdir())
    if Path(ready).exists():
        (root / "found.txt").write_text(" ".join(was))
        return data
    (root / "partial.txt").write_text("half")
    Path(ready).write_text("ready")
    for _ in range(400):
        time.sleep(0.1)
    return data

@volumes(on_terminate="commit")
@flow
def evicted(data: str, ready: str):
    return work(data, ready)
"""


def execute(run_id: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "prefect", "flow-run", "execute", str(run_id)]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_run_that_was_evicted_goes_on_from_what_sigterm_committed(server, tmp_path, monkeypatch):
    (tmp_path / "evicted_flow.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    import evicted_flow

    version, ready = made(a="0"), tmp_path / "ready"
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(evicted_flow.evicted),
            f"evicted-{time.monotonic_ns()}",
            path=str(tmp_path),
            entrypoint="evicted_flow.py:evicted",
        )
    run = run_deployment(deployment, parameters={"data": version.locator, "ready": str(ready)}, timeout=0, _sync=True)

    first = execute(run.id, PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR="reschedule")
    end = time.monotonic() + 90
    while not ready.exists():
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(0.3)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=60)

    on_sigterm = Volume.from_name_sync("data").committed
    assert on_sigterm is not None
    assert {"a": "0", "partial.txt": "half"} == texts(on_sigterm), said

    second = execute(run.id)
    again, _ = second.communicate(timeout=90)

    assert second.returncode == 0, said + again
    newest = Volume.from_name_sync("data").committed
    assert newest is not None
    assert "a partial.txt" == texts(newest)["found.txt"]
    assert on_sigterm.locator == newest.log_sync()[1].volume.locator
