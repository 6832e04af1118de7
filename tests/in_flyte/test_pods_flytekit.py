"""flytekit's pods: the device survives whatever the task asks for, and Kubernetes takes the result."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest
from flytekit import ContainerTask, ImageSpec, PodTemplate, Resources, map_task, task
from kubernetes.client import V1Container, V1PodSpec, V1ResourceRequirements, V1Toleration
from pod_kit import container, pod_of_flytekit, refusals

import volume_flyte
from volume_core import VolumeError
from volume_flyte.v1.pods import fuse_pod_template

DEVICE = "smarter-devices/fuse"
TEMPLATE = fuse_pod_template(cache_size="50Gi", requests=Resources(cpu="1"), limits=Resources(mem="4Gi"))


@task(pod_template=TEMPLATE)
def plain(n: int) -> int:
    return n


@task(pod_template=TEMPLATE, requests=Resources(cpu="2"), limits=Resources(mem="8Gi", ephemeral_storage="60Gi"))
def requesting(n: int) -> int:
    return n


@task(pod_template=TEMPLATE, resources=Resources(cpu=("1", "2"), gpu="1"))
def resourceful(n: int) -> int:
    return n


@task(pod_template=PodTemplate(pod_spec=V1PodSpec(containers=[
    V1Container(name="primary", resources=V1ResourceRequirements(limits={DEVICE: "1"}))
])), requests=Resources(cpu="2"))  # fmt: skip
def unprotected(n: int) -> int:
    return n


mapped = map_task(requesting)
raw = ContainerTask(name="raw", image="i", command=["true"], pod_template=TEMPLATE, requests=Resources(cpu="2"))


@pytest.mark.parametrize(
    ("entity", "requests", "limits"),
    [
        (plain, {"cpu": "1"}, {"memory": "4Gi"}),
        (requesting, {"cpu": "2"}, {"memory": "8Gi", "ephemeral-storage": "60Gi"}),
        (resourceful, {"cpu": "1", "gpu": "1"}, {"cpu": "2", "memory": "4Gi"}),
        (mapped, {"cpu": "2"}, {"memory": "8Gi", "ephemeral-storage": "60Gi"}),
        (raw, {"cpu": "2"}, {"memory": "4Gi"}),
    ],
    ids=["template only", "requests and limits", "resources", "map_task", "ContainerTask"],
)
def test_the_trap_that_a_tasks_resources_take_the_place_of_the_templates(entity, requests, limits):
    pod = pod_of_flytekit(entity)
    resources = container(pod.pod_spec)["resources"]

    assert {**requests, DEVICE: "1"} == resources["requests"]
    assert {**limits, DEVICE: "1"} == resources["limits"]
    assert {} == refusals(pod.pod_spec)


def test_flytekit_would_drop_the_device():
    """If this fails flytekit merges by itself, and our container is of no use any more."""
    resources = container(pod_of_flytekit(unprotected).pod_spec)["resources"]

    assert {"cpu": "2"} == resources["requests"]
    assert not resources.get("limits")


def test_the_pod_has_all_that_a_mount_needs_and_what_the_task_says():
    pod = pod_of_flytekit(plain)
    found = container(pod.pod_spec)

    assert "registry/image:1" == found["image"]
    assert "pyflyte-execute" == found["args"][0]
    assert {"capabilities": {"add": ["SYS_ADMIN"]}, "runAsUser": 0} == found["securityContext"]
    assert {"VOLUME_STATE_DIR": "/var/lib/volumes", "VOLUME_CACHE_LIMIT": str(25 << 30)} == {
        each["name"]: each["value"] for each in found["env"]
    }
    assert [{"name": "volume-state", "emptyDir": {"sizeLimit": "50Gi"}}] == pod.pod_spec["volumes"]
    assert [{"name": "volume-state", "mountPath": "/var/lib/volumes"}] == found["volumeMounts"]


@pytest.mark.parametrize(
    "options",
    [
        {"privileged": True},
        {"device": "github.com/fuse", "cache_size": None},
        {"run_as_user": 1000, "state_dir": "/state"},
        {"run_as_user": None},
    ],
)
def test_each_kind_of_template_passes_kubernetes_own_schemas(options):
    @task(pod_template=fuse_pod_template(**options), requests=Resources(cpu="2"))
    def t() -> None: ...

    assert {} == refusals(pod_of_flytekit(t).pod_spec)


def test_apparmors_profile_is_lifted_by_annotation_before_kubernetes_1_30_and_by_field_after():
    @task(pod_template=fuse_pod_template(apparmor_unconfined=True))
    def t() -> None: ...

    pod = pod_of_flytekit(t)
    annotations = {"container.apparmor.security.beta.kubernetes.io/primary": "unconfined"}

    assert annotations == pod.metadata.annotations
    assert {} == refusals(pod.pod_spec, annotations, versions=("1.30", "1.31", "1.37"))
    # A server that does not know the field drops it.
    assert {"1.29"} == refusals(pod.pod_spec, versions=("1.29",)).keys()


def test_the_schemas_would_find_a_mistake():
    spec = copy.deepcopy(pod_of_flytekit(plain).pod_spec)
    container(spec)["resources"]["limits"][DEVICE] = True

    assert 5 == len(refusals(spec))


def test_a_template_of_ones_own_keeps_what_it_has():
    side = V1Container(name="side", image="sidecar:1")
    base = PodTemplate(
        pod_spec=V1PodSpec(containers=[side], tolerations=[V1Toleration(key="gpu", operator="Exists")]),
        labels={"a": "b"},
        annotations={"c": "d"},
    )
    made = fuse_pod_template(base, labels={"e": "f"}, annotations={"g": "h"})

    @task(pod_template=made, requests=Resources(cpu="2"))
    def t() -> None: ...

    pod = pod_of_flytekit(t)

    assert [{"key": "gpu", "operator": "Exists"}] == pod.pod_spec["tolerations"]
    assert {"name": "side", "image": "sidecar:1"} == container(pod.pod_spec, "side")
    assert "resources" in container(pod.pod_spec)
    assert {"a": "b", "e": "f"} == pod.metadata.labels
    assert {"c": "d", "g": "h"} == pod.metadata.annotations
    assert [side] == base.pod_spec.containers
    assert {"a": "b"} == base.labels
    assert {} == refusals(pod.pod_spec)


def test_the_primary_container_may_have_another_name():
    base = PodTemplate(pod_spec=V1PodSpec(containers=[V1Container(name="main")]), primary_container_name="main")

    @task(pod_template=fuse_pod_template(base), limits=Resources(mem="1Gi"))
    def t() -> None: ...

    pod = pod_of_flytekit(t)

    assert {"memory": "1Gi", DEVICE: "1"} == container(pod.pod_spec, "main")["resources"]["limits"]


def test_a_task_whose_request_is_above_the_templates_limit_is_refused_when_it_is_registered():
    @task(pod_template=TEMPLATE, requests=Resources(mem="8Gi"))
    def t() -> None: ...

    with pytest.raises(VolumeError, match=r"requests\['memory'\] is 8Gi, more than its limit of 4Gi"):
        pod_of_flytekit(t)


def test_templates_are_equal_when_what_they_say_is():
    """flytekit's version of a registration is a hash that templates go into."""
    again = fuse_pod_template(cache_size="50Gi", requests={"cpu": "1"}, limits={"memory": "4Gi"})

    assert TEMPLATE == again
    assert TEMPLATE.version_hash() == again.version_hash() == fuse_pod_template(again).version_hash()
    assert TEMPLATE.version_hash() != fuse_pod_template().version_hash()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: cloudpickle.loads(cloudpickle.dumps(it))])
def test_a_copy_of_a_template_keeps_the_device_too(copied):
    @task(pod_template=copied(TEMPLATE), requests=Resources(cpu="2"))
    def t() -> None: ...

    assert "1" == container(pod_of_flytekit(t).pod_spec)["resources"]["limits"][DEVICE]


def test_an_override_of_a_node_may_be_such_a_template():
    from flytekit import workflow

    @workflow
    def wf(n: int) -> int:
        return unprotected(n=n).with_overrides(pod_template=TEMPLATE)

    [node] = wf.nodes

    assert TEMPLATE is node._pod_template


def test_without_an_sdk_in_sight_one_says_which_is_meant():
    assert TEMPLATE == volume_flyte.fuse_pod_template(TEMPLATE, cache_size="50Gi")
    with pytest.raises(VolumeError, match="both flytekit and flyte are imported: give a PodTemplate of the one"):
        volume_flyte.fuse_pod_template()
    with pytest.raises(VolumeError, match="base is a dict: give a PodTemplate of flytekit or of flyte"):
        volume_flyte.fuse_pod_template({})


@pytest.mark.parametrize("sdk", ["flytekit", "flyte"])
def test_the_sdk_that_is_imported_is_meant(sdk):
    code = f"import {sdk}, volume_flyte; print(type(volume_flyte.fuse_pod_template()).__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert sdk == done.stdout.split(".")[0]


def test_with_neither_sdk_one_says_so_and_without_kubernetes_what_to_install():
    code = """
import sys
{before}
import volume_flyte, volume_core
try:
    volume_flyte.fuse_pod_template()
except volume_core.VolumeError as error:
    print(error)
"""

    def said(before: str) -> str:
        command = [sys.executable, "-c", code.format(before=before)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "neither flytekit nor flyte is imported" in said("")
    assert "pip install 'volume-core[kubernetes]'" in said("import flyte; sys.modules['kubernetes'] = None")


def test_clients_from_before_kubernetes_37_whose_classes_are_others_give_the_same():
    old = os.environ.get("VOLUME_TEST_OLD_KUBERNETES")
    if old is None:
        pytest.skip("$VOLUME_TEST_OLD_KUBERNETES: a directory with an older client (pip install --no-deps --target)")
    program = (
        "import json, kubernetes, warnings; warnings.simplefilter('ignore'); import test_pods_flytekit as t;"
        "print(kubernetes.__version__);"
        "print(json.dumps([t.pod_of_flytekit(each).pod_spec for each in (t.plain, t.requesting, t.resourceful)]))"
    )
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))

    def run(python_path: str) -> list[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": python_path}, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip

    mine, theirs = run(path), run(os.pathsep.join((old, path)))

    assert mine[0] != theirs[0]
    assert mine[1] == theirs[1]


def test_an_image_spec_as_a_containers_image_stays_one_where_the_client_allows_it():
    image = ImageSpec(name="x", registry="registry")
    try:
        primary = V1Container(name="primary", image=image)
    except ValueError:
        pytest.skip("the installed client of Kubernetes takes text alone as an image")
    made = fuse_pod_template(PodTemplate(pod_spec=V1PodSpec(containers=[primary])))

    assert image == made.pod_spec.containers[0].image
