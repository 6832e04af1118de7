"""flytekit: one decorator gives every task of a workflow a named volume; here, and as the pods would be started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import logging_workflows as workflows
import pytest
import shared_tasks
from flytekit import ContainerTask, LaunchPlan, PodTemplate, Resources, Workflow, task, workflow
from flytekit.tools.translator import get_serializable
from shared_tasks import LOGS, SIDE
from v1_kit import contents
from v1_pods import SETTINGS, Registered

from volume_core import NotFoundError, ROVolume, StorageError, Volume, VolumeError
from volume_flyte import workflow_mounts
from volume_flyte.v1.pods import fuse_pod_template
from volume_flyte.v1.workflows import MountingWorkflow

EVERYTHING = "logging_workflows.everything"
logs = Volume.from_name_lazy("logs", create_if_missing=True)
DRIVERS = [pytest.param("kernel", marks=pytest.mark.fuse), "copy"]


@pytest.fixture(params=DRIVERS)
def driver(request, monkeypatch):
    """Real mounts, and plain directories where there is no privilege."""
    monkeypatch.setenv("VOLUME_DRIVER", request.param)


@pytest.fixture(autouse=True)
def nothing_left():
    """No test leaves anything where the volumes were."""
    yield
    assert not any(path.exists() and os.listdir(path) for path in (LOGS, SIDE))


def files(name: str = "logs") -> list[str]:
    """The files in the head of a volume; none if there is no such volume."""
    try:
        return sorted(contents(Volume.from_name_sync(name)))
    except NotFoundError:
        return []


# -- here


def test_each_run_of_a_workflow_adds_three_files_to_its_named_volume(driver):
    """The documented example of workflow-wide volumes elsewhere: a dispatch adds a file for each of its tasks."""
    assert 3 == workflows.three_logs()
    assert ["a-0", "b-0", "c-0"] == files()
    assert 6 == workflows.three_logs()
    assert ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"] == files()
    assert {"logs of a run"} == {entry.volume.message for entry in Volume.from_name_sync("logs").committed.log_sync()}


def test_a_task_of_the_workflow_that_runs_outside_of_it_is_what_it_was():
    workflows.three_logs.compile()

    assert workflows.not_decorated() is False
    with pytest.raises(FileNotFoundError):
        shared_tasks.log(name="x")


@pytest.mark.parametrize(
    ("number", "chosen", "children"), [(0, "small-0", 0), (1, "one-0", 1), (2, "large-0", 2)]
)  # every branch of the condition
def test_branches_subworkflows_mapped_and_dynamic_tasks_have_it_too(driver, number, chosen, children):
    returned = workflows.everything(number=number)

    assert [f"child{each}-0" for each in range(children)] == returned
    assert sorted([chosen, "mapped0-0", "mapped1-0", "below-0", "body-0", *returned]) == files()


def test_a_decorated_workflow_within_another_one_has_both(driver):
    workflows.both()

    assert ["x-0"] == files() == files("side")


def test_after_an_error_the_failed_tasks_work_is_not_committed_and_the_error_says_where_it_is(driver):
    with pytest.raises(ValueError, match="this task fails") as caught:
        workflows.failing()

    assert ["before-0"] == files()
    assert any("is kept" in note for note in caught.value.__notes__)


def test_pyflyte_run_mounts_too(tmp_path):
    here = Path(__file__).parent
    command = [Path(sys.executable).with_name("pyflyte"), "run", here / "logging_workflows.py", "three_logs"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert ["a-0", "b-0", "c-0"] == files()


def test_the_tasks_of_an_imperative_workflow_within_it_have_it(driver):
    imperative = Workflow(name="imperative")
    imperative.add_workflow_input("name", str)
    node = imperative.add_entity(shared_tasks.log, name=imperative.inputs["name"])
    imperative.add_workflow_output("out", node.outputs["o0"])

    @workflow_mounts({LOGS: logs})
    @workflow
    def wf(name: str) -> str:
        return imperative(name=name)

    assert "x-0" == wf(name="x")
    [sub] = wf.nodes
    [below] = sub.flyte_entity.nodes
    assert "test_v1_workflow_mounts.wf.shared_tasks.log" == below.flyte_entity.name
    assert shared_tasks.log is node.flyte_entity


def test_what_python_does_not_run_and_what_comes_after_a_failure_is_as_it_was(driver):
    raw = ContainerTask(name="raw", image="i", command=["true"])
    plan = LaunchPlan.get_or_create(workflows.inner)

    @workflow_mounts({LOGS: logs})
    @workflow(on_failure=workflows.not_decorated)
    def wf() -> str:
        raw()
        return plan(name="x").with_overrides(node_name="planned")

    entities = [node.flyte_entity for node in wf.nodes]

    assert [raw, plan] == entities
    assert "planned" == wf.nodes[1].id
    assert workflows.not_decorated is wf.failure_node.flyte_entity


# -- as pods


@pytest.mark.slow
def test_parallel_pods_of_a_workflow_add_three_files_each_time(tmp_path):
    registered = Registered(workflows.three_logs, tmp_path)
    name = "logging_workflows.three_logs.shared_tasks.log"
    for time in (0, 1):
        pods = [registered.start(name, name=each) for each in "abc"]

        assert [f"{each}-{time}" for each in "abc"] == [pod.wait().output(str) for pod in pods]
    count = registered.run("logging_workflows.three_logs.shared_tasks.count", after=["a-0"])

    assert 6 == count.output(int)
    assert ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1"] == files()


def test_every_task_of_every_kind_is_registered_with_its_workflow(tmp_path):
    registered = Registered(workflows.everything, tmp_path)
    mapped = [name for name in registered.templates if "map_log" in name]
    nodes = registered.spec.template.nodes
    branch = next(node.branch_node for node in nodes if node.branch_node).if_else
    chosen = [branch.case.then_node, *(case.then_node for case in branch.other), branch.else_node]

    assert {f"{EVERYTHING}.shared_tasks.log", f"{EVERYTHING}.shared_tasks.log_dynamically", *mapped} == {
        *registered.templates
    }
    assert [f"{EVERYTHING}.logging_workflows.inner"] == [each.id.name for each in registered.spec.sub_workflows]
    assert (
        f"{EVERYTHING}.shared_tasks.log"
        == chosen[0].task_node.reference_id.name
        == chosen[2].task_node.reference_id.name
    )
    assert f"{EVERYTHING}.logging_workflows.inner" == chosen[1].workflow_node.sub_workflow_ref.name
    [waiting] = [node.upstream_node_ids for node in nodes if node.task_node is None and node.branch_node is None and not
                 node.workflow_node]  # fmt: skip
    assert waiting == [node.id for node in nodes if node.branch_node]


@pytest.mark.slow
def test_pods_of_mapped_and_dynamic_tasks_have_it_too(tmp_path):
    registered = Registered(workflows.everything, tmp_path)
    [mapped] = [name for name in registered.templates if "map_log" in name]
    one = registered.start(mapped, index=1, name=["m0", "m1"])
    dynamic = registered.start(f"{EVERYTHING}.shared_tasks.log_dynamically", number=2)
    assert "m1-0" == one.wait().output(str)
    [(name, template)] = dynamic.wait().tasks().items()
    child = registered.run(name, template=template, name="child0")

    assert f"{EVERYTHING}.shared_tasks.log" == name
    assert "child0-0" == child.output(str)
    assert ["body-0", "child0-0", "m1-0"] == files()
    assert "supposed to nest" not in one.said + child.said


def test_a_pod_of_a_workflow_within_another_one_has_both(tmp_path):
    registered = Registered(workflows.both, tmp_path)
    pod = registered.run("logging_workflows.both.logging_workflows.side_only.shared_tasks.log_both", name="x")

    assert "x-0" == pod.output(str)
    assert ["x-0"] == files() == files("side")


def test_a_failing_pod_commits_nothing_and_its_error_says_where_the_work_is(tmp_path):
    registered = Registered(workflows.failing, tmp_path)
    error = registered.run("logging_workflows.failing.shared_tasks.fail", name="never").error()

    assert "this task fails" in error.message
    assert "is kept as working copy" in error.message
    assert [] == files()


def test_two_workflows_that_share_a_task_have_it_apart():
    names = {
        node.flyte_entity.name
        for each in (workflows.three_logs, workflows.failing, workflows.inner)
        for node in each.nodes
        if node.flyte_entity.name.endswith("log")
    }

    assert {
        "logging_workflows.three_logs.shared_tasks.log",
        "logging_workflows.failing.shared_tasks.log",
        "shared_tasks.log",
    } == names


# -- what is registered


@task(requests=Resources(cpu="2"))
def bare() -> int:
    return 1


@task(pod_template=PodTemplate(labels={"own": "yes"}))
def with_its_own_pod() -> int:
    return 1


def test_tasks_without_a_pod_template_get_the_workflows():
    @workflow_mounts({"/logs": logs}, pod_template=fuse_pod_template(cache_size="5Gi"))
    @workflow
    def wf() -> tuple[int, int]:
        return bare(), with_its_own_pod()

    first, second = (get_serializable({}, SETTINGS, node.flyte_entity).template for node in wf.nodes)
    container = first.k8s_pod.pod_spec["containers"][0]

    assert {"cpu": "2", "smarter-devices/fuse": "1"} == container["resources"]["requests"]
    assert "volume_flyte.v1.workflows.resolver" in container["args"]
    assert {"own": "yes"} == second.k8s_pod.metadata.labels
    assert bare.pod_template is None


def test_a_workflow_that_is_compiled_already_may_be_decorated():
    @workflow
    def wf() -> int:
        return bare()

    wf.compile()
    assert isinstance(workflow_mounts({"/logs": logs})(wf), MountingWorkflow)
    assert wf.nodes[0].flyte_entity.name.endswith("wf.test_v1_workflow_mounts.bare")


# -- what cannot be


def test_what_cannot_be_mounted_by_many_tasks_is_refused_at_once(tmp_path):
    with pytest.raises(VolumeError, match="the writer 'x' is this process's"):
        workflow_mounts({"/x": Volume.new("x")})
    with pytest.raises(VolumeError, match="side by side"):
        workflow_mounts({"/x": logs, "/x/y": logs})
    with pytest.raises(TypeError, match="no option mesage"):
        workflow_mounts({"/x": logs}, mesage="")


def test_what_is_no_workflow_is_refused():
    def function() -> int:
        return 1

    for target in (function, bare, None):
        with pytest.raises(VolumeError, match="put workflow_mounts above @workflow"):
            workflow_mounts({"/x": logs})(target)
    with pytest.raises(VolumeError, match=r"three_logs mounts volumes already: name them all in one"):
        workflow_mounts({"/x": logs})(workflows.three_logs)


def test_one_path_cannot_be_two_workflows():
    @workflow_mounts({"/logs/": logs})
    @workflow
    def below() -> int:
        return bare()

    @workflow_mounts({"/logs": logs})
    @workflow
    def above() -> int:
        return below()

    with pytest.raises(
        VolumeError, match="workflow above and workflow below, which it runs, both mount something there"
    ):
        above.compile()


def test_a_version_is_mounted_to_read(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        (path / "x").write_text("x")
    version = volume.committed

    @task
    def read() -> str:
        return (LOGS / "x").read_text()

    @workflow_mounts({LOGS: version})
    @workflow
    def wf() -> str:
        return read()

    assert isinstance(version, ROVolume)
    assert "x" == wf()
    assert 1 == len(version.log_sync())


def test_a_transient_failure_is_one_that_flyte_retries(tmp_path, monkeypatch):
    from flytekit.exceptions.user import FlyteRecoverableException

    from volume_core.facade.lazies import LazyVolume

    @task
    def own(name: str) -> int:
        if name:
            raise failure
        return 1

    @workflow_mounts({LOGS: logs})
    @workflow
    def wf(name: str) -> int:
        return own(name=name)

    failure = StorageError("the store is away", transient=True)
    with pytest.raises(StorageError):  # the body's own errors are its own affair
        wf(name="x")

    def away(self):
        raise failure

    monkeypatch.setattr(LazyVolume, "open_sync", away)
    with pytest.raises(FlyteRecoverableException, match="the store is away"):
        wf(name="")
    failure = StorageError("no such bucket")
    with pytest.raises(StorageError):
        wf(name="")
