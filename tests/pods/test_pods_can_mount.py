"""A process with just what a prepared pod grants its container can mount: the kernel says so, not a schema.

The runtime's part is played by setpriv: the container's user, its capabilities as the bounding set, no_new_privs.  What
a cluster adds to that (seccomp, AppArmor, the device plugin's cgroup) is not here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from volume_core import Volume, pods
from volume_core.testing.users import as_nobody

# What containerd gives every container.
DEFAULT_CAPABILITIES = [
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "mknod",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
]
USER_OF_THE_IMAGE = 1000

PROGRAM = """
import json
from volume_core import Volume
from volume_core.mount.doctor import examine
from volume_core.parts.state import State
best = examine(State.default().work).best().name
volume = Volume.new("data")
with volume.mounted_sync(driver=best) as path:
    (path / "d").mkdir()
    (path / "d" / "x").write_text("x")
    (path / "d" / "x").rename(path / "y")
fork = volume.committed.fork_sync("other")
with fork.mounted_sync(driver=best) as path:
    (path / "y").unlink()
    (path / "z").write_text("z")
print(json.dumps([best, fork.committed.locator]))
"""


def in_container(container, argv):
    """The command that runs *argv* as a container runtime would in *container*."""
    security = container["securityContext"]
    user = str(security.get("runAsUser", USER_OF_THE_IMAGE))
    dropped = {each.lower() for each in security["capabilities"].get("drop", [])}
    kept = [each for each in DEFAULT_CAPABILITIES if not dropped & {"all", each}]
    capabilities = [*kept, *(each.lower() for each in security["capabilities"]["add"])]
    inner = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--inh-caps=-all"]
    if not security.get("privileged"):
        inner.append("--bounding-set=-all," + ",".join(f"+{each}" for each in capabilities))
    if security.get("allowPrivilegeEscalation") is False:
        inner.append("--no-new-privs")
    return as_nobody([*inner, "--", *argv], uid=0)


@pytest.fixture
def disk():
    """The pod's emptyDir: any user may write there."""
    path = Path(tempfile.mkdtemp(prefix="volume-test-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def run(container, disk, program=PROGRAM):
    env = os.environ | {each["name"]: each["value"] for each in container["env"]} | {"HOME": str(disk)}
    env["VOLUME_MOUNT_ROOT"] = f"{disk}/mounts"
    command = in_container(container, [sys.executable, "-c", program])
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.fuse
@pytest.mark.parametrize(
    ("driver", "security", "options"),
    [
        ("kernel", {}, {}),
        ("kernel", {"allowPrivilegeEscalation": False}, {}),
        ("kernel", {}, {"privileged": True}),
        ("kernel", {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}, {}),
        ("fuse-overlay", {}, {"run_as_user": 1000}),
        ("fuse-overlay", {"runAsNonRoot": True}, {"run_as_user": None}),
        ("fuse-overlay", {"capabilities": {"drop": ["ALL"]}}, {"run_as_user": 1000}),
    ],
)
def test_what_a_prepared_pod_grants_is_enough_to_mount(driver, security, options, disk):
    given = {"containers": [{"name": "primary", "securityContext": security}]}
    container = pods.prepared(given, state_dir=str(disk / "state"), **options).spec["containers"][0]
    done = run(container, disk)
    assert 0 == done.returncode, done.stderr
    used, locator = json.loads(done.stdout)

    assert driver == used
    assert ["d", "z"] == sorted(entry.path.strip("/") for entry in Volume.from_locator_sync(locator).iterdir_sync("/"))


@pytest.mark.fuse
@pytest.mark.parametrize("drop", ["user", "capability", "escalation"])
def test_each_thing_that_a_prepared_pod_grants_is_needed(drop, disk):
    """Without one of them a writer is served by the copy driver alone: the tests above would notice."""
    given = {"containers": [{"name": "primary"}]}
    options = {} if drop == "capability" else {"run_as_user": 1000}
    container = pods.prepared(given, state_dir=str(disk / "state"), **options).spec["containers"][0]
    if drop == "capability":
        container["securityContext"]["capabilities"]["add"] = []
    elif drop == "escalation":
        container["securityContext"]["allowPrivilegeEscalation"] = False
    program = "from volume_core.mount.doctor import examine; print(examine('/').best().name)"
    if drop == "user":
        program = "from volume_core.mount.doctor import examine; print(examine('/').driver('kernel').writes)"
    done = run(container, disk, program)

    assert {"user": "False\n", "capability": "copy\n", "escalation": "copy\n"}[drop] == done.stdout, done.stderr
