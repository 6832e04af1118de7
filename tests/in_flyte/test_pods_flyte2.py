"""flyte 2's pods: all that allow_fuse() gives, and a disk, a user and what the site wants besides."""

from __future__ import annotations

import flyte
import pytest
from kubernetes.client import V1Container, V1PodSpec, V1SecurityContext
from pod_kit import container, pod_of_flyte, refusals

import volume_flyte
from volume_core import VolumeError, hookimpl
from volume_core.plugins.manager import register
from volume_flyte.v2.pods import fuse_pod_template

DEVICE = "smarter-devices/fuse"


def task_in(template, **options):
    environment = flyte.TaskEnvironment("pods", pod_template=template, **options)

    @environment.task
    async def t(n: int) -> int:
        return n

    return t


def contained(small, large):
    """Whether all that *small* says, *large* says too."""
    if isinstance(small, dict):
        return all(key in large and contained(value, large[key]) for key, value in small.items())
    if isinstance(small, list):
        return all(any(contained(each, other) for other in large) for each in small)
    return small == large


@pytest.mark.parametrize("privileged", [False, True])
def test_what_allow_fuse_gives_is_given(privileged):
    theirs = pod_of_flyte(task_in(flyte.PodTemplate().allow_fuse(privileged=privileged)))
    ours = pod_of_flyte(task_in(fuse_pod_template(privileged=privileged)))

    assert contained(theirs, ours), (theirs, ours)
    assert {} == refusals(ours["podSpec"], ours["metadata"]["annotations"])


@pytest.mark.parametrize("privileged", [False, True])
def test_it_comes_before_allow_fuse_or_after_it(privileged):
    ours = fuse_pod_template(privileged=privileged)
    after = fuse_pod_template(flyte.PodTemplate().allow_fuse(privileged=privileged), privileged=privileged)

    assert ours == after == ours.allow_fuse(privileged=privileged)
    assert ours == fuse_pod_template(ours, privileged=privileged)


def test_the_environments_resources_are_merged_with_the_templates():
    template = fuse_pod_template(cache_size="50Gi", requests={"cpu": "1"}, limits={"memory": "4Gi"})
    pod = pod_of_flyte(task_in(template, resources=flyte.Resources(cpu=("2", "3"), memory="2Gi")))
    found = container(pod["podSpec"])

    assert {DEVICE: "1", "cpu": "2", "memory": "2Gi"} == found["resources"]["requests"]
    assert {DEVICE: "1", "cpu": "3", "memory": "4Gi"} == found["resources"]["limits"]
    assert {"capabilities": {"add": ["SYS_ADMIN"]}, "runAsUser": 0} == found["securityContext"]
    assert [{"name": "volume-state", "emptyDir": {"sizeLimit": "50Gi"}}] == pod["podSpec"]["volumes"]
    assert {"name": "VOLUME_STATE_DIR", "value": "/var/lib/volumes"} in found["env"]
    assert {} == refusals(pod["podSpec"])


@pytest.mark.parametrize(
    "options",
    [
        {"privileged": True, "run_as_user": None},
        {"device": "hdls.me/fuse", "cache_size": None},
        {"run_as_user": 1000},
    ],
)
def test_each_kind_of_template_of_flyte_2_passes_kubernetes_own_schemas(options):
    pod = pod_of_flyte(task_in(fuse_pod_template(**options)))

    assert {} == refusals(pod["podSpec"])
    assert {"flyte.org/capability-fuse": "true"} == pod["metadata"]["annotations"]


def test_it_goes_with_the_template_for_nested_sandboxes():
    """Root has its capabilities without escalation, so what that forbids is not needed."""
    template = fuse_pod_template(flyte.PodTemplate().allow_nested_sandboxing())

    assert template == fuse_pod_template(template).allow_nested_sandboxing()
    with pytest.raises(VolumeError, match="allowPrivilegeEscalation: false"):
        fuse_pod_template(template, run_as_user=1000)


def test_a_pod_spec_of_ones_own_keeps_what_it_has():
    spec = V1PodSpec(
        containers=[
            V1Container(name="side", image="sidecar:1"),
            V1Container(name="main", security_context=V1SecurityContext(run_as_group=5)),
        ],
        termination_grace_period_seconds=90,
    )
    base = flyte.PodTemplate.from_spec(spec, primary_container_name="main", labels={"a": "b"})
    made = fuse_pod_template(base, labels={"c": "d"}, annotations={"e": "f"})
    pod = pod_of_flyte(task_in(made))

    assert 90 == pod["podSpec"]["terminationGracePeriodSeconds"]
    assert 5 == container(pod["podSpec"], "main")["securityContext"]["runAsGroup"]
    assert {"name": "side", "image": "sidecar:1"} == container(pod["podSpec"], "side")
    assert {"a": "b", "c": "d"} == pod["metadata"]["labels"]
    assert {"e": "f", "flyte.org/capability-fuse": "true"} == pod["metadata"]["annotations"]
    assert {"a": "b"} == base.labels


def test_the_sites_plugin_has_the_last_word():
    class Site:
        @hookimpl
        def volume_pod(self, spec):
            spec["nodeSelector"] = {"disk": "nvme"}

    take_out = register(Site())
    try:
        template = volume_flyte.fuse_pod_template(flyte.PodTemplate())
    finally:
        take_out()

    assert {"disk": "nvme"} == pod_of_flyte(task_in(template))["podSpec"]["nodeSelector"]
