"""Pods of KubernetesPodOperator: what they are asked to be, and what comes back from them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from unittest import mock

import pytest
from airflow.providers.cncf.kubernetes.exceptions import PodMutationHookException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.secret import Secret
from airflow_kit import Supervisor, made, returned, run_tasks, texts
from airflow_pods import base, can_mount, env_of, made_by_operator, with_policy
from kubernetes.client import models

from volume_airflow.compat import DAG, serialize, task
from volume_airflow.operators.pod import VolumePodOperator, versions_for_markers
from volume_airflow.pods import annotation
from volume_core import InvalidNameError, NotFoundError, ROVolume, RWVolume, VolumeError

_numbers = itertools.count()


@pytest.fixture
def dag():
    with DAG("pods", schedule=None) as made:
        yield made


def operator(**kwargs):
    return VolumePodOperator(**{"task_id": f"pod_{next(_numbers)}", "image": "repo/image:1", "cmds": ["run"], **kwargs})


def test_a_container_has_the_locators_and_can_mount_them(dag):
    version = made(a="1")
    pod = made_by_operator(operator(versions={"DATA": version}, env_vars={"A": "1"}, do_xcom_push=True))
    assert can_mount(pod)
    assert {"A": "1", "DATA": version.locator}.items() <= env_of(base(pod)).items()
    assert len(env_of(base(pod))) == len(base(pod)["env"])
    sidecar = base(pod, "airflow-xcom-sidecar")
    assert "securityContext" not in sidecar and "limits" not in sidecar["resources"]


def test_a_second_pod_of_the_same_operator_is_the_same(dag):
    each = operator(versions={"DATA": made(a="1")}, files={"/in": made(b="2")}, volume_image="v", name="n",
                    random_name_suffix=False, annotations={"x": "y"})  # fmt: skip
    assert made_by_operator(each) == made_by_operator(each)
    assert each.annotations == {"x": "y"}


def test_the_container_may_have_another_name_and_options_of_its_own(dag):
    pod = made_by_operator(
        operator(
            versions={"DATA": made(a="1")},
            base_container_name="main",
            pod_options={"cache_size": "7Gi", "limits": {"memory": "1Gi"}},
            container_resources=models.V1ResourceRequirements(requests={"cpu": "1"}),
        )
    )
    assert can_mount(pod, "main")
    assert base(pod, "main")["resources"] == {
        "limits": {"memory": "1Gi", "smarter-devices/fuse": "1"},
        "requests": {"cpu": "1", "smarter-devices/fuse": "1"},
    }


def test_a_pod_whose_command_opens_volumes_by_itself_is_prepared_by_giving_it_options(dag):
    assert can_mount(made_by_operator(operator(pod_options={})))
    assert not can_mount(made_by_operator(operator()))


def test_an_ordinary_pod_operator_is_prepared_by_the_annotation(dag):
    plain = KubernetesPodOperator(task_id="plain", image="i", annotations=annotation(cache_size="7Gi"))
    assert can_mount(made_by_operator(plain))


def test_files_of_a_version_are_copied_in_before_an_image_that_knows_nothing_of_volumes_starts(dag, tmp_path):
    version = made(a="1")
    place = tmp_path / "in"
    place.mkdir()  # as the emptyDir is
    pod = made_by_operator(
        operator(
            files={str(place): version},
            volume_image="repo/volumes:1",
            env_vars={"A": "1"},
            secrets=[Secret("env", "AWS_SECRET_ACCESS_KEY", "keys", "secret"), Secret("env", None, "more")],
        )
    )
    assert not can_mount(pod)  # no privilege is asked for: nothing is mounted
    [init] = pod["spec"]["initContainers"]
    assert init["image"] == "repo/volumes:1"
    assert init["volumeMounts"] == [{"name": "volume-files-0", "mountPath": str(place)}]
    assert init["volumeMounts"][0] in base(pod)["volumeMounts"]
    assert {"name": "volume-files-0", "emptyDir": {}} in pod["spec"]["volumes"]
    assert {"A", "AWS_SECRET_ACCESS_KEY", "VOLUME_STATE_DIR"} <= env_of(init).keys()
    assert init["envFrom"] == [{"secretRef": {"name": "more"}}]

    run_as_program(init["command"], VOLUME_STATE_DIR=str(tmp_path / "state-of-init"))
    assert {each.name: each.read_text() for each in place.iterdir()} == {"a": "1"}


def run_as_program(command: list[str], **variables: str) -> None:
    assert command[0] == "volume"
    program = [sys.executable, "-c", "from volume_core.cli.main import main; main()", *command[1:]]
    done = subprocess.run(program, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"files": {"/in": "x"}}, "give volume_image="),
        ({"files": {"in": "x"}, "volume_image": "v"}, "give an absolute path of the container"),
        ({"files": {"/": "x"}, "volume_image": "v"}, "give an absolute path of the container"),
    ],
)
def test_what_cannot_be_copied_is_refused_before_there_is_a_pod(dag, given, said):
    version = made(a="1")
    given["files"] = dict.fromkeys(given["files"], version)
    with pytest.raises(VolumeError, match=said):
        made_by_operator(operator(**given))


def test_what_stands_for_no_volume_is_refused_with_where_it_was_said(dag):
    with pytest.raises(InvalidNameError, match=r"versions\['DATA'\]: "):
        made_by_operator(operator(versions={"DATA": 3}))
    with pytest.raises(NotFoundError) as caught:
        made_by_operator(operator(versions={"DATA": "nowhere"}))
    assert caught.value.__notes__ == ["this is versions['DATA']"]


def test_a_pod_that_says_the_contrary_fails_the_task(dag):
    each = operator(
        versions={"DATA": made(a="1")},
        container_security_context=models.V1SecurityContext(run_as_user=1000, allow_privilege_escalation=False),
    )
    with pytest.raises((VolumeError, PodMutationHookException), match="allowPrivilegeEscalation: false"):
        made_by_operator(each)


def test_the_task_that_creates_the_pod_needs_no_prepared_pod_of_its_own(dag, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")

    @task
    def make() -> RWVolume: ...

    version = make()
    assert with_policy(operator(versions={"DATA": version})).executor_config == {}
    assert with_policy(KubernetesPodOperator(task_id="k", image="i", arguments=[version])).executor_config == {}


# -- results


def test_trap_a_marker_in_return_json_is_a_version_where_an_envelope_would_be_refused():
    """Trap: Airflow refuses a dictionary with the key __classname__, so a container cannot return what a task does."""
    version = made(a="1")
    found = versions_for_markers(
        json.loads(json.dumps({"model": {"volume": version.locator}, "more": [{"volume": version.locator}, 3]}))
    )
    assert found == {"model": version, "more": [version, 3]}
    with pytest.raises(Exception, match="reserved"):
        serialize({"__classname__": "volume_core.volumes.ROVolume", "locator": version.locator})


@pytest.mark.parametrize("other", [{"volume": 3}, {"volume": "x", "size": 1}, "volume", None, [1]])
def test_what_is_no_marker_is_left_as_it_is(other):
    assert versions_for_markers(other) == other


def test_a_marker_that_leads_nowhere_fails_the_task_and_says_where_it_stood():
    with pytest.raises(NotFoundError) as caught:
        versions_for_markers({"volume": "nowhere"})
    assert caught.value.__notes__ == ["this is the container's return.json"]


def test_what_the_container_made_is_a_version_for_the_next_task(dag, monkeypatch):
    """The whole task, from templates to XComs; only the cluster is played."""
    version, result = made(a="1"), made("out", b="2")

    @task
    def source():
        return version

    @task
    def use(data):
        assert type(data["model"]) is ROVolume
        return texts(data["model"])

    each = operator(versions={"DATA": source(), "CONST": "{{ run_id and params.where }}"}, do_xcom_push=True,
                    params={"where": version.locator})  # fmt: skip
    use(each.output)
    asked = play_cluster(monkeypatch, {"model": {"volume": result.locator}})

    supervisor = run_tasks(dag, Supervisor())

    assert {"b": "2"} == returned(supervisor, "use")
    [pod] = asked
    env = {each.name: each.value for each in pod.spec.containers[0].env}
    assert env["DATA"] == env["CONST"] == version.locator


def play_cluster(monkeypatch, result) -> list:
    """Answer for a cluster whose pods end well, and write *result*; return the pods that were asked for."""
    asked: list = []

    def create(self, pod_request_obj, context):
        asked.append(pod_request_obj)
        return pod_request_obj

    manager = mock.Mock()
    manager.extract_xcom.return_value = json.dumps(result)
    monkeypatch.setattr(KubernetesPodOperator, "get_or_create_pod", create)
    monkeypatch.setattr(KubernetesPodOperator, "pod_manager", manager)
    monkeypatch.setattr(KubernetesPodOperator, "find_pod", lambda self, *args, **kwargs: self.pod)
    monkeypatch.setattr(KubernetesPodOperator, "await_pod_start", lambda self, pod: None)
    monkeypatch.setattr(KubernetesPodOperator, "is_istio_enabled", lambda self, pod: False)
    monkeypatch.setattr(KubernetesPodOperator, "post_complete_action", lambda self, **kwargs: None)
    hook = mock.Mock(is_in_cluster=True)
    hook.get_namespace.return_value = "ns"
    hook.get_xcom_sidecar_container_image.return_value = "alpine"
    hook.get_xcom_sidecar_container_resources.return_value = None
    hook.get_xcom_sidecar_container_security_context.return_value = None
    monkeypatch.setattr(KubernetesPodOperator, "hook", hook)
    return asked
