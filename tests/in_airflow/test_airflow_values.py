"""Volumes go from task to task as values."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, BaseOperator, PokeReturnValue, setup, task, teardown
from airflow_kit import Supervisor, made, returned, run_task, run_tasks, texts, written

from volume_core import ROVolume, RWVolume, Volume


@dataclasses.dataclass
class Pair:
    """Two volumes."""

    one: Any
    other: Any


def new(name: str = "data", **files: str) -> RWVolume:
    """A writer with *files* in it that are not committed."""
    return written(Volume.new(name), files or {"a": "1"})


@pytest.fixture
def dag():
    """A DAG to define tasks in."""
    with DAG("values", schedule=None) as made_here:
        yield made_here


def test_a_writer_that_a_task_returns_is_a_version_for_the_next_one(dag):
    @task
    def make():
        return new()

    @task
    def read(data):
        assert type(data) is ROVolume
        return texts(data)

    read(make())
    supervisor = run_tasks(dag)

    assert {"a": "1"} == returned(supervisor, "read")
    assert type(returned(supervisor, "make")) is ROVolume


def test_writers_within_what_is_returned_are_versions_and_one_handle_is_one_commit(dag):
    @task
    def make():
        one, other = new("one"), new("other")
        return {"list": [one, other, one], "tuple": (one, 3), "deep": {"x": [{"y": other}]}, "n": 1}

    make()
    found = returned(run_tasks(dag), "make")

    one, other = found["list"][:2]
    assert [one, other, one] == found["list"]
    assert (one, 3) == found["tuple"]
    assert {"x": [{"y": other}]} == found["deep"]
    assert 1 == len(one.log_sync())
    assert {"a": "1"} == texts(one) == texts(other)


def test_writers_in_a_dataclass_are_versions(dag):
    seen = []

    @task(on_success_callback=lambda context: seen.append(context["ti"].xcom_pull("make")))
    def make():
        return Pair(new("one"), 2)

    make()
    supervisor = run_tasks(dag)

    [(_, envelope)] = supervisor.xcoms.items()
    assert envelope["__data__"]["one"]["__classname__"] == "volume_core.volumes.ROVolume"


def test_a_namedtuple_arrives_as_a_tuple_and_a_class_with_a_constructor_of_its_own_does_not_fail_the_task(dag):
    class Named(NamedTuple):
        one: RWVolume
        n: int

    class Odd(dict):
        def __init__(self, this_alone):
            super().__init__(data=this_alone)

    @task
    def make():
        return Named(new("one"), 2)

    @task
    def odd():
        return Odd(new("two"))

    make()
    odd()
    supervisor = run_tasks(dag)

    version, number = returned(supervisor, "make")
    assert ("one", 2) == (version.name, number)
    assert "two" == returned(supervisor, "odd")["data"].name


def test_multiple_outputs_are_versions_each_of_their_own(dag):
    @task(multiple_outputs=True)
    def make():
        return {"one": new("one"), "other": new("other"), "n": 1}

    make()
    supervisor = run_tasks(dag)

    for name in ("one", "other"):
        assert (ROVolume, name) == (type(found := returned(supervisor, "make", key=name)), found.name)
    assert 1 == returned(supervisor, "make", key="n")


def test_multiple_outputs_are_inferred_of_a_dict_that_is_annotated(dag):
    @task
    def make() -> dict[str, RWVolume]:
        return {"one": new("one")}

    make()
    supervisor = run_tasks(dag)

    assert "one" == returned(supervisor, "make", key="one").name


def test_an_async_task_hands_its_volumes_over(dag):
    @task
    async def make() -> RWVolume:
        volume = Volume.new("data")
        path = await volume.mount(driver="copy")
        (path / "a").write_text("async")
        return volume

    make()
    assert {"a": "async"} == texts(returned(run_tasks(dag), "make"))


def test_an_operator_of_ones_own_hands_its_volumes_over(dag):
    class Make(BaseOperator):
        def execute(self, context):
            return new("own")

    Make(task_id="make")
    assert "own" == returned(run_tasks(dag), "make").name


def test_an_async_operator_hands_its_volumes_over(dag):
    from airflow.sdk.bases.operator import BaseAsyncOperator

    class Make(BaseAsyncOperator):
        async def aexecute(self, context):
            return [new("own")]

    Make(task_id="make")
    assert ["own"] == [each.name for each in returned(run_tasks(dag), "make")]


def test_setup_and_teardown_pass_volumes_on_as_other_tasks_do(dag):
    @setup
    def begin():
        return new()

    @task
    def work(data: RWVolume):
        return written(data, {"b": "2"})

    @teardown
    def end(data, changed):
        return sorted(texts(data)), sorted(texts(changed))

    data = begin()
    end(data, work(data))
    assert (["a"], ["a", "b"]) == returned(run_tasks(dag), "end")


def test_what_is_pushed_explicitly_is_a_version_at_once(dag):
    @task
    def make(ti=None):
        volume = new()
        ti.xcom_push("side", volume)
        ti.xcom_push(key="named", value=[volume])
        written(volume, {"later": "2"})
        return volume

    make()
    supervisor = run_tasks(dag)

    side, last = returned(supervisor, "make", key="side"), returned(supervisor, "make")
    assert [side] == returned(supervisor, "make", key="named")
    assert {"a": "1"} == texts(side)
    assert {"a": "1", "later": "2"} == texts(last)


def test_what_is_pushed_in_a_coroutine_is_a_version(dag):
    @task
    async def make(ti=None):
        await ti.axcom_push("side", new())

    make()
    assert {"a": "1"} == texts(returned(run_tasks(dag), "make", key="side"))


def test_a_generator_task_hands_over_what_it_returns_and_what_it_yields_is_no_value(dag):
    @task
    def make():
        yield from ()
        return new()

    make()
    assert {"a": "1"} == texts(returned(run_tasks(dag), "make"))


@pytest.mark.filterwarnings("ignore:The .airflow.utils.operator_helpers")  # Airflow's own sensor asks for it
def test_a_sensor_hands_over_what_it_has_found_and_pokes_with_one_version(dag):
    from airflow.providers.standard.sensors.python import PythonSensor

    pokes = []

    @task.sensor(poke_interval=0, timeout=60)
    def wait(data: ROVolume):
        pokes.append(data)
        return PokeReturnValue(is_done=len(pokes) == 2, xcom_value=data)

    base = made(a="1")
    wait(base.locator)

    def done(data: ROVolume):
        return type(data) is ROVolume

    PythonSensor(task_id="old", python_callable=done, op_args=[base.locator], poke_interval=0, timeout=60)
    supervisor = run_tasks(dag)

    assert [base, base] == pokes
    assert base == returned(supervisor, "wait")


def test_what_has_no_volume_in_it_is_the_very_same_object(dag):
    given = {"a": [1, (2, 3)], "b": Pair(1, 2)}
    seen = []

    @task(post_execute=lambda context, result: seen.append(result))
    def make():
        return given

    make()
    run_tasks(dag)
    assert seen[0] is given


# -- what a task takes


def kinds_of(dag, function, *args, **kwargs):
    """What the task made of *function* has returned."""
    task(function)(*args, **kwargs)
    return returned(run_tasks(dag), function.__name__)


def test_a_parameter_annotated_as_a_writer_has_a_fork_and_one_annotated_as_a_version_that(dag):
    base = made(a="1")
    forms = [base, base.model_dump(mode="json"), {"locator": base.locator}, base.locator, "data", "vol://data"]

    @task
    def look(reads: list[ROVolume], writes: list[RWVolume], untouched: list, one: RWVolume | None = None):
        assert one is None
        assert {ROVolume} == {type(each) for each in reads}
        assert {RWVolume} == {type(each) for each in writes}
        assert len({id(each) for each in writes}) == len(writes)
        assert {(base.name, base.index)} == {(each.name, each.index) for each in [*reads, *writes]}
        return untouched

    look(forms, forms, ["data", base.locator])
    assert ["data", base.locator] == returned(run_tasks(dag), "look")


def test_a_classic_python_operator_takes_volumes_by_position_and_by_name(dag):
    made(a="1")

    def change(first: RWVolume, second: ROVolume, *more: ROVolume, last: RWVolume, plain="data", ti=None):
        assert ti is not None
        return [type(each).__name__ for each in (first, second, *more, last, plain)]

    PythonOperator(
        task_id="change", python_callable=change, op_args=["data", "data", "data"], op_kwargs={"last": "data"}
    )
    assert ["RWVolume", "ROVolume", "ROVolume", "RWVolume", "str"] == returned(run_tasks(dag), "change")


def test_a_default_that_stands_for_a_volume_is_one(dag):
    made(a="1")

    @task
    def look(run_id, data: ROVolume = "data"):
        return run_id, texts(data)

    look()
    assert ("a-run", {"a": "1"}) == returned(run_tasks(dag), "look")


def test_a_parameter_that_is_named_like_a_key_of_the_context_is_filled_by_airflow(dag):
    made(a="1")

    @task
    def look(data: ROVolume, run_id=None, params=None):
        return texts(data), run_id, dict(params)

    look("data")
    assert ({"a": "1"}, "a-run", {}) == returned(run_tasks(dag), "look")


def test_templates_and_params_stand_for_volumes():
    base = made(a="1")
    with DAG("templates", schedule=None, params={"data": base.locator}) as dag:

        @task
        def make():
            return base

        @task
        def look(data: ROVolume, pulled: ROVolume):
            return data == pulled == base

        make() >> look("{{ params.data }}", "{{ ti.xcom_pull('make') }}")

    assert returned(run_tasks(dag), "look") is True


def test_annotations_that_are_text_for_type_checkers_only_are_seen(dag):
    made(a="1")
    names: dict[str, Any] = {}
    exec("def look(data: 'RWVolume'):\n    return type(data).__name__", names)

    assert "RWVolume" == kinds_of(dag, names["look"], "data")


def test_a_reference_by_name_in_the_dag_is_opened_in_the_task_and_lands_on_the_head(dag):
    made(a="1")

    @task
    def change(data: RWVolume):
        return written(data, {"b": "2"})

    change(Volume.from_name_lazy("data"))
    version = returned(run_tasks(dag), "change")

    assert {"a": "1", "b": "2"} == texts(version)
    assert version == Volume.from_name_sync("data").committed


def test_a_writer_that_the_dag_itself_holds_is_another_handle_in_each_try(dag):
    given = Volume.new("data")

    @task
    def change(data: RWVolume):
        assert data is not given
        return written(data, {"a": "1"})

    change(given)
    supervisor = run_tasks(dag)
    run_task(dag.get_task("change"), supervisor, try_number=2)

    assert given.index is None
    assert 1 == len(returned(supervisor, "change").log_sync())


def test_what_can_be_no_volume_fails_the_task_and_says_which_parameter(dag):
    @task
    def look(data: ROVolume):
        raise AssertionError("never called")

    look("no-such-volume")
    ended = run_task(dag.get_task("look"), Supervisor())

    assert "failed" == ended.state
    assert "no-such-volume" in str(ended.error)
    assert "parameter 'data'" in "".join(ended.error.__notes__)


# -- with a database


def test_mapped_tasks_with_a_database(run_dag):
    with DAG("mapped", schedule=None) as dag:

        @task
        def make():
            return [new("one"), new("other")]

        @task
        def change(data: RWVolume, word):
            return written(data, {"b": word})

        @task
        def collect(all_of_them: list[ROVolume], as_they_come):
            assert type(as_they_come).__name__ == "LazyXComSequence"
            assert isinstance(all_of_them, list)
            return {each.name: texts(each)["b"] for each in as_they_come}

        changed = change.partial(word="2").expand(data=make())
        collect(changed, changed)

    run, xcoms = run_dag(dag)

    assert run.state == "success"
    assert {"one": "2", "other": "2"} == xcoms["collect", -1, "return_value"]
    changed = xcoms["change", 1, "return_value"]
    assert ("other", "airflow", "change[1]") == (changed.name, changed.produced_by.engine, changed.produced_by.action)
