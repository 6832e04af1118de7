"""Each step of mounting fails once, the 1st, the 2nd, ... until none is left to fail: nothing is ever half mounted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from mount_kit import Bench
from server_kit import DEADLINE_S

from volume_core.mount.mounting import plan_for
from volume_core.mount.plans import Plan

pytestmark = [pytest.mark.fuse, pytest.mark.faults]

_MOUNTER = """
import json, os, sys
from volume_core.mount import attaching, claiming, control, keeper, kernel, plans, supervisor, syscalls

plan, fail_at = plans.Plan.from_fields(json.loads(sys.argv[1])), int(sys.argv[2])
calls = []

def failing(place, name):
    plain = getattr(place, name)
    def call(*args, **kwargs):
        calls.append(name)
        if len(calls) == fail_at:
            raise OSError(5, "injected into " + name)
        return plain(*args, **kwargs)
    setattr(place, name, call)

for place, name in [
    (claiming, "hold"), (claiming, "_make"), (plans.Record, "save"), (supervisor.Supervisor, "_write_log"),
    (syscalls, "mount"), (supervisor.attaching, "attach_view"), (keeper.ServerKeeper, "_spawn"),
    (supervisor.attaching, "raise_readahead"), (kernel, "prepare_upper"), (kernel, "_places"), (control, "listen"),
]:
    failing(place, name)
kept = supervisor.Supervisor(plan)
answer = os.dup(1)
try:
    kept.start()
except Exception as error:
    os.write(answer, json.dumps({"error": str(error), "calls": calls}).encode())
else:
    os.write(answer, json.dumps({"calls": calls}).encode())
    os.close(answer)
    kept.end("the test")
    kept.run()
"""


def mount_failing(plan: Plan, fail_at: int) -> dict:
    """Mount as a supervisor would, with the *fail_at*-th step failing; unmount if it did not."""
    command = [sys.executable, "-c", _MOUNTER, json.dumps(plan._asdict()), str(fail_at)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=DEADLINE_S, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["reader", "writer", "new_volume"])
def test_a_mount_that_fails_at_any_step_leaves_nothing(bench: Bench, kind):
    failed: list[str] = []
    for fail_at in range(1, 40):
        request = getattr(bench, kind)()
        told = mount_failing(plan_for("kernel", request), fail_at)

        bench.assert_clean()
        assert not os.path.exists(request.mount_path)
        if "error" not in told:
            break
        failed.append(told["calls"][-1] if fail_at == len(told["calls"]) else told["calls"][fail_at - 1])
        assert "injected into" in told["error"]
    steps = {"reader": ["mount", "_spawn"], "writer": ["mount", "_spawn", "mount"], "new_volume": ["mount"]}[kind]
    assert steps == [step for step in failed if step in {"mount", "_spawn"}]
    assert {"hold", "_make", "save", "_write_log", "listen"} <= set(failed)
