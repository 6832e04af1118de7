"""Pods, containers and pull steps: manifests as Prefect makes them, judged by Kubernetes' own schemas."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from types import SimpleNamespace

import kubernetes_validate
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import Flow as ApiFlow
from prefect.client.schemas.objects import FlowRun
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from volume_core import NotFoundError, Volume, VolumeError, hookimpl
from volume_core.plugins.manager import register
from volume_prefect import steps
from volume_prefect.blocks import VolumeStore
from volume_prefect.infrastructure import docker_variables, enable_work_pool, with_volumes

TEMPLATE = KubernetesWorker.get_default_base_job_template()
RELEASES = ("1.28", kubernetes_validate.latest_version())


def manifest(template: dict, **variables) -> dict:
    """What a worker sends to the cluster for a flow run with these job variables."""

    async def make():
        made = await KubernetesWorkerJobConfiguration.from_template_and_values(template, variables)
        made.prepare_for_flow_run(FlowRun(name="run", flow_id=uuid.uuid4()), flow=ApiFlow(name="train"))
        return made.job_manifest

    return asyncio.run(make())


def judged(job: dict) -> dict:
    """The pod of *job*, once Kubernetes' schemas have been asked."""
    for release in RELEASES:
        strict = copy.deepcopy(job)
        for field in ("parallelism", "completions"):  # Prefect's own template has them a level too deep
            strict["spec"][field] = strict["spec"]["template"]["spec"].pop(field, 1)
        kubernetes_validate.validate(strict, release, strict=True)
    return job["spec"]["template"]


def flow_container(pod: dict) -> dict:
    return pod["spec"]["containers"][0]


def env_of(container: dict) -> dict:
    return {each["name"]: each["value"] for each in container["env"]}


def test_the_judge_finds_a_misspelt_field():
    job = manifest(with_volumes(TEMPLATE), image="i")
    flow_container(job["spec"]["template"])["securityContext"]["capabilites"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        judged(job)


def test_a_pod_has_the_device_of_a_plugin_the_capability_and_a_disk():
    pod = judged(manifest(with_volumes(TEMPLATE, cache_size="40Gi"), image="repo/image:1", namespace="ml"))
    container = flow_container(pod)
    assert container["resources"]["limits"]["smarter-devices/fuse"] == "1"
    assert "SYS_ADMIN" in container["securityContext"]["capabilities"]["add"]
    assert "privileged" not in container["securityContext"]
    [disk] = pod["spec"]["volumes"]
    assert disk["emptyDir"] == {"sizeLimit": "40Gi"}
    [mount] = container["volumeMounts"]
    assert (mount["name"], mount["mountPath"]) == (disk["name"], env_of(container)["VOLUME_STATE_DIR"])
    assert env_of(container)["VOLUME_CACHE_LIMIT"] == str(20 << 30)


def test_without_a_plugin_the_container_is_privileged_and_has_the_nodes_device():
    pod = judged(manifest(with_volumes(TEMPLATE, privileged=True), image="i"))
    assert flow_container(pod)["securityContext"]["privileged"] is True
    assert {"path": "/dev/fuse", "type": "CharDevice"} in [each.get("hostPath") for each in pod["spec"]["volumes"]]


def test_placeholders_stay_and_a_deployments_resources_are_merged_with_the_device():
    template = with_volumes(TEMPLATE)
    resources = flow_container(template["job_configuration"]["job_manifest"]["spec"]["template"])["resources"]
    assert resources["limits"]["cpu"] == "{{ cpu_limit }}"
    assert resources["requests"]["memory"] == "{{ memory_request }}"
    pod = judged(manifest(template, image="i", cpu_limit="2", memory_limit="4Gi", cpu_request="1"))
    assert flow_container(pod)["resources"] == {
        "limits": {"cpu": "2", "memory": "4Gi", "smarter-devices/fuse": "1"},
        "requests": {"cpu": "1", "smarter-devices/fuse": "1"},
    }


def test_amounts_that_are_asked_for_go_before_the_placeholders():
    template = with_volumes(TEMPLATE, requests={"cpu": "1"}, limits={"cpu": "2", "nvidia.com/gpu": 1})
    limits = flow_container(judged(manifest(template, image="i", memory_limit="1Gi")))["resources"]["limits"]
    assert limits == {"cpu": "2", "memory": "1Gi", "nvidia.com/gpu": "1", "smarter-devices/fuse": "1"}


def test_the_env_of_a_deployment_is_merged_and_goes_before():
    template = with_volumes(TEMPLATE)
    container = flow_container(judged(manifest(template, image="i", env={"A": "1", "VOLUME_CACHE_LIMIT": "1G"})))
    found = env_of(container)
    assert (found["A"], found["VOLUME_CACHE_LIMIT"]) == ("1", "1G")
    assert found["VOLUME_STATE_DIR"] == "/var/lib/volumes"
    assert len(found) == len(container["env"])


def test_a_template_that_writes_its_env_out_keeps_it():
    template = copy.deepcopy(TEMPLATE)
    own = flow_container(template["job_configuration"]["job_manifest"]["spec"]["template"])
    own["env"] = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    container = flow_container(judged(manifest(with_volumes(template), image="i", env={"A": "1"})))
    names = [each["name"] for each in container["env"]]
    assert {"TOKEN", "VOLUME_STATE_DIR", "A"} <= set(names)


def test_what_is_given_is_not_changed_and_twice_is_once():
    before = copy.deepcopy(TEMPLATE)
    once = with_volumes(TEMPLATE, apparmor_unconfined=True)
    assert before == TEMPLATE
    assert with_volumes(once, apparmor_unconfined=True) == once


def test_apparmor_is_lifted_by_annotation_too():
    pod = judged_without_apparmor_field(manifest(with_volumes(TEMPLATE, apparmor_unconfined=True), image="i"))
    assert pod["metadata"]["annotations"] == {
        "container.apparmor.security.beta.kubernetes.io/prefect-job": "unconfined"
    }


def judged_without_apparmor_field(job: dict) -> dict:
    """Releases before 1.30 do not know the field, and pass it by."""
    pod = job["spec"]["template"]
    del flow_container(pod)["securityContext"]["appArmorProfile"]
    return judged(job)


def test_a_sites_plugin_has_the_last_word():
    class Site:
        @hookimpl
        def volume_pod(self, spec):
            spec["nodeSelector"] = {"fuse": "yes"}

    forget = register(Site())
    try:
        assert judged(manifest(with_volumes(TEMPLATE), image="i"))["spec"]["nodeSelector"] == {"fuse": "yes"}
    finally:
        forget()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda job, _pod: job.clear(), "no base job template of a Kubernetes work pool"),
        (lambda _job, pod: flow_container(pod).update(securityContext="{{ sc }}"), "for all of securityContext"),
        (lambda _job, pod: pod["spec"].update(volumes="{{ v }}"), "for all of volumes"),
    ],
)
def test_a_template_that_cannot_be_added_to_is_refused(change, said):
    template = copy.deepcopy(TEMPLATE)
    job = template["job_configuration"]["job_manifest"]
    change(job, job["spec"]["template"])
    with pytest.raises(VolumeError, match=said):
        with_volumes(template)


def test_a_work_pool_is_enabled_where_it_is_and_keeps_its_own(server):
    own, name = copy.deepcopy(TEMPLATE), f"pool-{uuid.uuid4().hex[:6]}"
    own["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=name, type="kubernetes", base_job_template=own))
        enable_work_pool(name)
        enable_work_pool(name, cache_size="7Gi")
        with pytest.raises(VolumeError, match="asks for the device smarter-devices/fuse already"):
            enable_work_pool(name, privileged=True)
        stored = client.read_work_pool(name).base_job_template
    pod = judged(manifest(stored, image="i"))
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert [each["emptyDir"] for each in pod["spec"]["volumes"]] == [{"sizeLimit": "7Gi"}]
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=f"{name}-p", type="process"))
    with pytest.raises(VolumeError, match="is of type 'process'"):
        enable_work_pool(f"{name}-p")


# -- Docker


def container_settings(**variables) -> dict:
    """What the Docker worker asks the daemon for."""
    template = DockerWorker.get_default_base_job_template()

    async def make():
        made = await DockerWorkerJobConfiguration.from_template_and_values(template, {"image": "i", **variables})
        made.prepare_for_flow_run(FlowRun(name="run", flow_id=uuid.uuid4()))
        return made

    made = asyncio.run(make())
    daemon = SimpleNamespace(version=lambda: {"Version": "27.0.0"})
    return DockerWorker._build_container_settings(None, daemon, made)


def test_a_container_gets_the_device_the_capability_and_a_disk_of_its_own():
    settings = container_settings(**docker_variables())
    assert settings["devices"] == ["/dev/fuse:/dev/fuse:rwm"]
    assert settings["cap_add"] == ["SYS_ADMIN"]
    assert settings["security_opt"] == ["apparmor:unconfined"]
    assert settings["volumes"] == ["/var/lib/volumes"]
    assert settings["environment"]["VOLUME_STATE_DIR"] == "/var/lib/volumes"
    assert not settings["privileged"]


def test_a_privileged_container_needs_no_device_and_the_disk_may_be_the_hosts():
    settings = container_settings(**docker_variables(privileged=True, state="/disk:/state"))
    assert settings["privileged"] is True
    assert "devices" not in settings
    assert settings["volumes"] == ["/disk:/state"]
    assert settings["environment"]["VOLUME_STATE_DIR"] == "/state"


def test_a_state_that_is_no_path_in_the_container_is_refused():
    with pytest.raises(VolumeError, match="give a path in the container"):
        docker_variables(state="state")


# -- pull steps


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


def publish(store: str, files: dict[str, str]):
    volume = Volume.from_name_sync("code", store, create_if_missing=True)
    with volume.mounted_sync(driver="copy") as path:
        for name, text in files.items():
            (path / name).write_text(textwrap.dedent(text))
    return volume.committed


@pytest.fixture
def unmounted():
    yield
    for version in steps._mounted:
        version.close_sync()
    steps._mounted.clear()


def test_a_step_mounts_what_it_is_told_by_name_tag_or_url(server, store, tmp_path, unmounted, monkeypatch):
    monkeypatch.setenv("VOLUME_BUCKET", store)
    first = publish(store, {"a": "1"})
    first.tag_sync("release")
    publish(store, {"a": "2"})
    found = steps.mount_volume("code:release", str(tmp_path / "one"), driver="copy")
    assert (found["directory"], found["locator"]) == (str(tmp_path / "one"), first.locator)
    assert (tmp_path / "one" / "a").read_text() == "1"
    head = steps.mount_volume("code", driver="copy")
    assert Path(head["directory"], "a").read_text() == "2"
    assert steps.mount_volume(first.locator, driver="copy")["version"] == first.version


def test_a_step_looks_in_the_store_of_a_block(server, store, unmounted):
    version = publish(store, {"a": "1"})
    name = f"store-{uuid.uuid4().hex[:6]}"
    VolumeStore(url=store).save(name)
    assert steps.mount_volume("code", store=name, driver="copy")["version"] == version.version
    with pytest.raises(NotFoundError):
        steps.mount_volume("nothing", store=name, driver="copy")
    with pytest.raises(VolumeError, match="no block volume-store/nobody"):
        steps.mount_volume("code", store="nobody")


@pytest.mark.slow
@pytest.mark.fuse
def test_a_deployments_flow_is_imported_from_a_volume_that_its_pull_step_mounts(server, store, tmp_path):
    publish(
        store,
        {
            "pipeline.py": """
                from pathlib import Path
                from prefect import flow
                import beside

                @flow
                def main(out: str):
                    Path(out).write_text(f"{beside.WORD} from {Path(__file__).parent}")
            """,
            "beside.py": 'WORD = "hello"',
        },
    )
    place = tmp_path / "code"
    pull = [
        {"volume_prefect.steps.mount_volume": {"id": "code", "volume": "code", "path": str(place)}},
        {"prefect.deployments.steps.set_working_directory": {"directory": "{{ code.directory }}"}},
    ]
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow_from_name("main")
        deployment = client.create_deployment(flow_id, name="d", pull_steps=pull, entrypoint="pipeline.py:main")
        run = client.create_flow_run_from_deployment(deployment, parameters={"out": str(tmp_path / "out")})
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)],
        env=os.environ | {"VOLUME_BUCKET": store}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "out").read_text() == f"hello from {place}"
    assert not os.path.ismount(place)


def test_a_template_is_json():
    assert json.loads(json.dumps(with_volumes(TEMPLATE))) == with_volumes(TEMPLATE)
