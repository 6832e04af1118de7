"""Which tasks' pods are marked, and that nothing else of a DAG is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from airflow_pods import with_policy

from volume_airflow import compat
from volume_airflow.compat import DAG, BaseOperator, BashOperator, task
from volume_airflow.operators.volume import VolumeMergeOperator
from volume_airflow.pods import ANNOTATION, uses_volumes, volume_pod_override
from volume_airflow.sensors.volume import VolumeSensor
from volume_core import ROVolume, RWVolume, Volume, mounts

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.usefixtures("kubernetes_executor")


@pytest.fixture
def kubernetes_executor(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,KubernetesExecutor")


@pytest.fixture
def dag():
    with DAG("pods", schedule=None) as made:
        yield made


def mark_of(each) -> str | None:
    override = with_policy(each).executor_config.get("pod_override")
    return None if override is None else (override.metadata.annotations or {}).get(ANNOTATION)


@pytest.mark.parametrize(
    "annotation",
    [RWVolume, ROVolume | None, list[RWVolume], dict[str, ROVolume], "RWVolume", "list[OnlyForCheckers]"],
    ids=str,
)
def test_a_task_whose_parameter_is_annotated_as_a_volume_is_marked(dag, annotation):
    def use(data):
        return 1

    use.__annotations__["data"] = annotation
    known = annotation != "list[OnlyForCheckers]"  # of another name, that is there for type checkers alone, nothing is
    assert mark_of(task(use)("x").operator) == ("{}" if known else None)


@pytest.mark.parametrize("annotation", [RWVolume, dict[str, RWVolume], "ROVolume | None"], ids=str)
def test_a_task_that_is_annotated_as_returning_a_volume_is_marked(dag, annotation):
    def make():
        return None

    make.__annotations__["return"] = annotation
    assert mark_of(task(make)().operator) == "{}"


def test_a_task_that_has_nothing_to_do_with_volumes_is_left_alone(dag):
    @task
    def plain(a: int, b: dict[str, list[int]]) -> str:
        return ""

    given = plain(1, {}).operator
    assert with_policy(given).executor_config == {}
    assert with_policy(BaseOperator(task_id="empty")).executor_config == {}


def test_a_function_below_mounts_is_marked(dag, tmp_path):
    @task
    @mounts({tmp_path / "data": Volume.from_name_lazy("data")})
    def train(number: int) -> int:
        return number

    assert mark_of(train(1).operator) == "{}"


def test_a_task_that_is_given_the_output_of_one_that_returns_volumes_is_marked(dag):
    @task
    def make() -> RWVolume:
        return Volume.new("data")

    @task
    def number() -> int:
        return 1

    @task
    def unannotated(data):
        return data

    version = make()
    assert mark_of(BashOperator(task_id="there", bash_command="ls", cwd=version)) == "{}"
    assert mark_of(unannotated({"deep": [version]}).operator) == "{}"
    assert mark_of(BashOperator(task_id="not_there", bash_command="ls", cwd="/", env={"A": number()})) is None


def test_a_mapped_task_is_marked_through_what_its_instances_are_made_of(dag):
    @task
    def parts() -> list[RWVolume]:
        return []

    @task
    def annotated(part: ROVolume, number):
        return number

    @task
    def unannotated(part):
        return part

    made = parts()
    by_annotation = with_policy(annotated.partial(part="data").expand(number=[1, 2]).operator)
    assert by_annotation.partial_kwargs["executor_config"]["pod_override"].metadata.annotations == {ANNOTATION: "{}"}
    assert mark_of(unannotated.expand(part=made).operator) == "{}"
    assert mark_of(BashOperator.partial(task_id="b", bash_command="ls").expand(cwd=made)) == "{}"
    assert mark_of(BashOperator.partial(task_id="c", bash_command="ls").expand(cwd=["/"])) is None


def test_an_operator_says_by_itself_whether_it_mounts(dag):
    class Mounts(BaseOperator):
        mounts_volumes = True

    class AsksTheStore(BaseOperator):
        mounts_volumes = False
        returns_volumes = True
        template_fields = ("given",)

        def __init__(self, given=None, **kwargs):
            super().__init__(**kwargs)
            self.given = given

    @task
    def make() -> RWVolume:
        return Volume.new("data")

    asks = AsksTheStore(task_id="asks", given=make())
    assert mark_of(Mounts(task_id="mounts")) == "{}"
    assert mark_of(asks) is None
    assert mark_of(BashOperator(task_id="bash", bash_command="ls", cwd=asks.output)) == "{}"


def test_a_template_that_mounts_is_seen(dag):
    command = "ls {{ macros.volume.path('data') }}"
    assert mark_of(BashOperator(task_id="command", bash_command=command)) == "{}"
    assert mark_of(BashOperator(task_id="env", bash_command="ls $D", env={"D": command[3:]})) == "{}"
    assert mark_of(BashOperator(task_id="neither", bash_command="ls {{ ds }}", env={"D": "volume"})) is None


def test_what_this_package_brings_says_whether_it_mounts(dag):
    merge = VolumeMergeOperator(task_id="merge", versions=["a", "b"])
    sensor = VolumeSensor(task_id="sensor", name="data")

    @task.volume(volume="data")
    def write(vol: RWVolume = None): ...

    assert (mark_of(merge), mark_of(sensor), mark_of(write().operator)) == (None, None, "{}")
    assert mark_of(BashOperator(task_id="after_merge", bash_command="ls", cwd=merge.output)) == "{}"
    assert mark_of(BashOperator(task_id="after_sensor", bash_command="ls", cwd=sensor.output)) == "{}"


def test_a_task_can_say_that_its_pod_shall_be_left_alone(dag):
    @task(executor_config={"volume_pod": False})
    def reads_names(data: ROVolume):
        return data.name

    assert with_policy(reads_names("x").operator).executor_config == {"volume_pod": False}


def test_an_override_that_is_there_is_kept_and_the_authors_object_is_not_changed(dag):
    from kubernetes.client import models

    own = models.V1Pod(
        metadata=models.V1ObjectMeta(labels={"team": "a"}, annotations={"x": "y"}),
        spec=models.V1PodSpec(containers=[models.V1Container(name="base", image="mine")]),
    )
    before = own.to_dict()

    @task(executor_config={"pod_override": own, "pod_template_file": "/t.yaml"})
    def use(data: ROVolume): ...

    config = with_policy(use("x").operator).executor_config
    assert config["pod_template_file"] == "/t.yaml"
    assert config["pod_override"].metadata.annotations == {"x": "y", ANNOTATION: "{}"}
    assert config["pod_override"].spec.containers[0].image == "mine"
    assert own.to_dict() == before


def test_what_somebody_has_said_of_the_pod_is_not_said_again(dag):
    @task(executor_config={"pod_override": volume_pod_override(cache_size="50Gi", privileged=True)})
    def use(data: ROVolume): ...

    operator = use("x").operator
    assert json.loads(mark_of(operator)) == {"cache_size": "50Gi", "privileged": True}
    assert mark_of(operator) == mark_of(operator)


def test_an_override_that_airflow_will_refuse_is_left_for_it_to_refuse(dag):
    @task(executor_config={"pod_override": {"spec": {}}})
    def use(data: ROVolume): ...

    assert with_policy(use("x").operator).executor_config == {"pod_override": {"spec": {}}}


@pytest.mark.parametrize(
    ("variable", "value", "marked"),
    [
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor", False),
        ("AIRFLOW__CORE__EXECUTOR", "CeleryKubernetesExecutor", True),
        ("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,pods:site.K8sExecutor", True),
        ("AIRFLOW__VOLUME__POD_OVERRIDE", "False", False),
        ("AIRFLOW__VOLUME__POD_OVERRIDE", "True", True),
    ],
)
def test_pods_are_marked_where_an_executor_makes_them_and_nobody_has_said_no(dag, monkeypatch, variable, value, marked):
    monkeypatch.setenv(variable, value)

    @task
    def use(data: ROVolume): ...

    assert (mark_of(use("x").operator) == "{}") is marked


@pytest.mark.parametrize(
    ("executor", "annotation", "loaded"),
    [
        ("LocalExecutor", "'ROVolume'", "marked:"),
        ("KubernetesExecutor", "'list[int]'", "marked:"),
        ("KubernetesExecutor", "'ROVolume'", "marked:pod_override kubernetes volume_core.passing"),
    ],
)
def test_nothing_is_loaded_for_tasks_without_volumes_or_where_nobody_makes_pods(executor, annotation, loaded):
    script = f"""
        import sys
        from airflow import settings
        from volume_airflow.compat import DAG, task

        with DAG("d", schedule=None):
            @task
            def use(data: {annotation}): ...
            operator = use("x").operator
        before = set(sys.modules)
        settings.task_policy(operator)
        heavy = ["kubernetes", "volume_core.passing"]
        print(" ".join(["marked:" + "".join(operator.executor_config),
            *(each for each in heavy if each in sys.modules and each not in before)]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = {**os.environ, "AIRFLOW__CORE__EXECUTOR": executor}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if not compat.IS_3:
        loaded = loaded.replace(" kubernetes", "")  # which 2.11 has loaded itself
    assert done.stdout.splitlines()[-1:] == [loaded], done.stdout + done.stderr


def dag_bag(file: str):
    if compat.IS_3:
        from airflow.dag_processing.dagbag import DagBag

        return DagBag(file)
    from airflow.models.dagbag import DagBag

    return DagBag(file, include_examples=False)


def test_what_a_dag_is_serialized_as_does_not_depend_on_when_it_is_read_nor_on_the_settings(tmp_path, monkeypatch):
    from airflow.serialization import serialized_objects

    serialization = serialized_objects.DagSerialization if compat.IS_3 else serialized_objects.SerializedDAG
    file = tmp_path / "pods_dag.py"
    file.write_text(
        textwrap.dedent("""
        from volume_airflow.compat import dag, task
        from volume_core import ROVolume, RWVolume, Volume

        @dag(schedule=None)
        def read_from_a_file():
            @task
            def make() -> RWVolume: ...
            @task
            def use(data: ROVolume): ...
            use.expand(data=[make()])

        read_from_a_file()
        """)
    )

    def read():
        bag = dag_bag(str(file))
        assert bag.import_errors == {}
        return bag.dags["read_from_a_file"]

    once = serialization.serialize_dag(read())
    monkeypatch.setenv("AIRFLOW__VOLUME__POD_CACHE_SIZE", "7Gi")
    assert json.dumps(serialization.serialize_dag(read())) == json.dumps(once)
    back = serialization.deserialize_dag(once)
    for each in ("make", "use"):
        override = back.get_task(each).executor_config["pod_override"]
        assert override.metadata.annotations == {ANNOTATION: "{}"}


def test_what_uses_volumes_is_known_of_tasks_without_functions_too(dag):
    assert not uses_volumes(BaseOperator(task_id="nothing"))
