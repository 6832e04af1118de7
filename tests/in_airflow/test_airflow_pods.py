"""Pods of KubernetesExecutor: made by Airflow from its own templates, judged by Kubernetes' own schemas."""

from __future__ import annotations

import copy

import kubernetes_validate
import pytest
from airflow.providers.cncf.kubernetes.exceptions import PodMutationHookException
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow_pods import TEMPLATES, base, can_mount, env_of, judged, made_by_executor, with_policy
from kubernetes.client import models

from volume_airflow import compat
from volume_airflow.compat import DAG, task
from volume_airflow.pods import ANNOTATION, annotation, prepare, volume_pod_override
from volume_core import ROVolume, VolumeError, hookimpl
from volume_core.plugins.manager import register


@pytest.fixture(autouse=True)
def kubernetes_executor(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")


def using(executor_config=None):
    """A task that uses a volume."""
    with DAG("pods", schedule=None):

        @task(executor_config=executor_config)
        def use(data: ROVolume): ...

        return with_policy(use("x").operator)


def template(change=None):
    pod = PodGenerator.deserialize_model_file(str(TEMPLATES / "dags_in_image_template.yaml"))
    if change is not None:
        change(pod.spec.containers[0], pod)
    return pod


def test_the_judge_finds_a_misspelt_field():
    pod = copy.deepcopy(made_by_executor(using()))
    base(pod)["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        judged(pod)


@pytest.mark.parametrize("name", sorted(each.name for each in TEMPLATES.glob("*template.yaml")))
def test_a_task_that_uses_volumes_runs_in_a_pod_that_can_mount_whichever_of_airflows_templates_it_is_of(name):
    pod = made_by_executor(using(), name)
    assert can_mount(pod)
    assert pod["spec"]["securityContext"]["runAsUser"] == 50000  # Airflow's own image: no root
    security = base(pod)["securityContext"]
    # The capability is of no effect for it: the setuid program of fuse3 mounts, and has to be allowed to.
    assert (security["runAsUser"], security["allowPrivilegeEscalation"]) == (50000, True)
    assert env_of(base(pod))["VOLUME_STATE_DIR"] == "/var/lib/volumes"
    assert {"name": "volume-state", "mountPath": "/var/lib/volumes"} in base(pod)["volumeMounts"]


def test_what_the_template_says_stays_also_where_an_override_would_have_taken_its_place():
    """Trap: Airflow does not merge resources and security contexts: the override's replace the template's."""

    def change(container, _pod):
        container.resources = models.V1ResourceRequirements(limits={"memory": "4Gi"}, requests={"cpu": "1"})
        container.security_context = models.V1SecurityContext(capabilities=models.V1Capabilities(drop=["ALL"]))

    pod = made_by_executor(using(), template(change))
    assert can_mount(pod)
    assert base(pod)["resources"] == {
        "limits": {"memory": "4Gi", "smarter-devices/fuse": "1"},
        "requests": {"cpu": "1", "smarter-devices/fuse": "1"},
    }
    assert base(pod)["securityContext"]["capabilities"] == {
        "drop": ["ALL"],
        "add": ["SYS_ADMIN", "CHOWN", "DAC_OVERRIDE", "FOWNER"],
    }
    plain = made_by_executor(using({"volume_pod": False}), template(change))
    without = [each for each in base(pod)["env"] if not each["name"].startswith("VOLUME_")]
    assert without == base(plain)["env"]
    assert [each for each in pod["spec"]["volumes"] if each["name"] != "volume-state"] == plain["spec"]["volumes"]


def test_what_a_tasks_own_override_says_stays():
    own = models.V1Pod(
        spec=models.V1PodSpec(
            containers=[
                models.V1Container(
                    name="base",
                    image="repo/own:2",
                    env=[models.V1EnvVar(name="A", value="1")],
                    resources=models.V1ResourceRequirements(limits={"nvidia.com/gpu": "1"}),
                )
            ],
            node_selector={"disk": "ssd"},
        )
    )
    pod = made_by_executor(using({"pod_override": own}))
    assert can_mount(pod)
    assert base(pod)["image"] == "repo/own:2"
    assert env_of(base(pod))["A"] == "1"
    assert base(pod)["resources"]["limits"] == {"nvidia.com/gpu": "1", "smarter-devices/fuse": "1"}
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}


def test_a_pod_of_a_task_without_volumes_is_as_airflow_makes_it():
    pod = made_by_executor(using({"volume_pod": False}))
    assert not can_mount(pod)
    assert "securityContext" not in base(pod)


def test_the_settings_of_the_site_count_when_the_pod_is_made(monkeypatch):
    operator = using()
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_PRIVILEGED", "True")
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_CACHE_SIZE", "7Gi")
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_STATE_DIR", "/scratch/volumes")
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_RUN_AS_USER", "0")
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_APPARMOR_UNCONFINED", "True")
    pod = made_by_executor(operator)
    security = base(pod)["securityContext"]
    assert (security["privileged"], security["runAsUser"]) == (True, 0)
    assert security["appArmorProfile"] == {"type": "Unconfined"}
    assert {"path": "/dev/fuse", "type": "CharDevice"} in [each.get("hostPath") for each in pod["spec"]["volumes"]]
    assert {"sizeLimit": "7Gi"} in [each.get("emptyDir") for each in pod["spec"]["volumes"]]
    assert env_of(base(pod))["VOLUME_STATE_DIR"] == "/scratch/volumes"
    assert pod["metadata"]["annotations"]["container.apparmor.security.beta.kubernetes.io/base"] == "unconfined"
    assert pod["metadata"]["annotations"]["task_id"] == "use"


def test_what_a_task_says_goes_before_the_settings(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_CACHE_SIZE", "7Gi")
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_DEVICE", "example.com/fuse")
    pod = made_by_executor(using({"pod_override": volume_pod_override(cache_size="50Gi", limits={"memory": "8Gi"})}))
    assert {"sizeLimit": "50Gi"} in [each.get("emptyDir") for each in pod["spec"]["volumes"]]
    assert base(pod)["resources"]["limits"] == {"example.com/fuse": "1", "memory": "8Gi"}
    unlimited = made_by_executor(using({"pod_override": volume_pod_override(cache_size=None, run_as_user=None)}))
    assert {"name": "volume-state", "emptyDir": {}} in unlimited["spec"]["volumes"]
    assert "runAsUser" not in base(unlimited)["securityContext"]


def test_the_container_is_base_whatever_the_template_calls_it():
    def change(container, _pod):
        container.name = "worker"

    assert can_mount(made_by_executor(using(), template(change)))


def test_an_override_whose_container_is_not_named_base_fails_the_task_and_says_so():
    """Trap: Airflow takes the first container whatever it is called, and its logs are then looked for in vain."""
    own = models.V1Pod(spec=models.V1PodSpec(containers=[models.V1Container(name="main")]))
    with pytest.raises(PodMutationHookException) as caught:
        made_by_executor(using({"pod_override": own}))
    assert "has no container 'base'; there is 'main'" in str(caught.value.__cause__)


def test_a_pod_that_says_the_contrary_is_not_overruled():
    def change(container, _pod):
        container.security_context = models.V1SecurityContext(allow_privilege_escalation=False)

    with pytest.raises(PodMutationHookException) as caught:
        made_by_executor(using(), template(change))
    assert isinstance(caught.value.__cause__, VolumeError)
    said = str(caught.value.__cause__)
    assert "allowPrivilegeEscalation: false" in said
    assert "pod_... in the section [volume]" in said
    assert "'volume_pod': False" in said


def test_the_container_of_the_official_chart_that_drops_everything_can_mount_as_root(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_RUN_AS_USER", "0")

    def change(container, pod):
        pod.spec.security_context = models.V1PodSecurityContext(run_as_user=50000, fs_group=0)
        container.security_context = models.V1SecurityContext(
            allow_privilege_escalation=False, capabilities=models.V1Capabilities(drop=["ALL"])
        )

    [container] = made_by_executor(using(), template(change))["spec"]["containers"]

    security = container["securityContext"]
    assert (0, False, ["ALL"]) == (
        security["runAsUser"], security["allowPrivilegeEscalation"], security["capabilities"]["drop"],
    )  # fmt: skip
    assert {"SYS_ADMIN", "DAC_OVERRIDE"} <= set(security["capabilities"]["add"])


def test_prepared_twice_a_pod_is_as_it_was_prepared_once():
    once = PodGenerator.deserialize_model_dict(made_by_executor(using()))
    twice = copy.deepcopy(once)
    prepare(twice)
    assert PodGenerator.serialize_pod(twice) == PodGenerator.serialize_pod(once)


def test_a_sites_plugin_has_the_last_word():
    class Site:
        @hookimpl
        def volume_pod(self, spec):
            spec["nodeSelector"] = {"fuse": "yes"}

    forget = register(Site())
    try:
        assert made_by_executor(using())["spec"]["nodeSelector"] == {"fuse": "yes"}
    finally:
        forget()


def test_a_sites_own_policy_sees_the_pod_as_it_was_prepared():
    from airflow import settings
    from airflow.policies import hookimpl as policy

    manager = settings.get_policy_plugin_manager() if compat.IS_3 else settings.POLICY_PLUGIN_MANAGER

    class Site:
        @policy
        def pod_mutation_hook(self, pod):
            seen.append(PodGenerator.serialize_pod(pod))

    seen: list[dict] = []
    site = Site()
    manager.register(site)
    try:
        made_by_executor(using())
    finally:
        manager.unregister(site)
    assert can_mount(seen[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache_size": "much"}, "cache_size is 'much'"),
        ({"device": "fuse"}, "device is 'fuse'"),
        ({"limits": {"mem": "1Gi"}}, "Kubernetes knows no such resource"),
    ],
)
def test_an_option_that_is_of_no_use_is_refused_where_it_is_written(options, said):
    with pytest.raises(VolumeError, match=said):
        volume_pod_override(**options)


def test_there_are_no_other_options():
    with pytest.raises(TypeError, match="there is no option cache of a pod"):
        volume_pod_override(cache="1Gi")


@pytest.mark.parametrize("text", ["yes", "[]", '{"cache": 1}'])
def test_an_annotation_that_says_nothing_known_fails_the_task(text):
    with pytest.raises(VolumeError, match="the pod's annotation volume-core/pod"):
        prepare(models.V1Pod(metadata=models.V1ObjectMeta(annotations={ANNOTATION: text})))


@pytest.mark.parametrize(
    ("variable", "said"),
    [("POD_PRIVILEGED", r"\[volume\] pod_privileged is 'maybe'"), ("POD_RUN_AS_USER", r"\[volume\] pod_run_as_user")],
)
def test_a_setting_that_is_of_no_use_is_named(monkeypatch, variable, said):
    monkeypatch.setenv(f"AIRFLOW__VOLUME__{variable}", "maybe")
    with pytest.raises(VolumeError, match=said):
        prepare(models.V1Pod(metadata=models.V1ObjectMeta(annotations=annotation())))


def test_without_the_package_kubernetes_nothing_is_marked_and_an_override_says_what_to_install(monkeypatch):
    import importlib.util
    import sys

    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(VolumeError, match=r"pip install 'volume-core\[airflow,kubernetes\]'"):
        volume_pod_override()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert using().executor_config == {}
