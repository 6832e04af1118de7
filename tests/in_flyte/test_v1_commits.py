"""flytekit: when a volume is committed, in which thread, how often, and what flytekit is told when it fails."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from flytekit import LaunchPlan, dynamic, task, workflow
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.exceptions.system import FlyteUploadDataException
from pydantic import BaseModel
from v1_kit import contents, counted, failing, fill, made

from volume_core import ConflictError, ROVolume, RWVolume, StorageError, Volume


@dataclass
class Data:
    data: RWVolume


@dataclass
class Either:
    either: RWVolume | str | None
    several: list[RWVolume | int]


class Model(BaseModel):
    several: list[RWVolume]


@task
def two() -> tuple[RWVolume, RWVolume]:
    volume = fill(Volume.new("two"), a="two")
    return volume, volume


@task
def read(data: ROVolume) -> str:
    return contents(data)["a"]


@task
def fails() -> RWVolume:
    volume = fill(Volume.new("fails"), a="fails")
    if volume.name:
        raise ValueError("the body")
    return volume


def test_two_outputs_of_one_handle_are_one_commit():
    @workflow
    def wf() -> tuple[ROVolume, ROVolume]:
        one, other = two()
        return one, other

    with counted() as commits:
        one, other = wf()
    assert one == other
    assert 1 == len(commits.versions)


def test_a_body_that_raises_commits_nothing():
    with counted() as commits, pytest.raises(ValueError, match="the body"):
        fails()
    assert [] == commits.versions


def test_a_commit_is_not_done_in_the_thread_of_flytekits_loop():
    """The body runs in the main thread, and flytekit converts in a thread that runs an event loop."""
    threads: list[str] = []

    class Watched(RWVolume):
        def commit_sync(self, *arguments, **options):
            threads.append(threading.current_thread().name)
            return super().commit_sync(*arguments, **options)

    @task
    def make() -> RWVolume:
        threads.append(threading.current_thread().name)
        return fill(Watched(**Volume.new("a").model_dump()), a="a")

    make()
    body, *commits = threads
    assert "MainThread" == body
    assert commits and all(name.startswith("asyncio_") for name in commits)


def test_the_mount_of_the_body_is_still_there_after_the_commit():
    kept: list[RWVolume] = []

    @task
    def make() -> RWVolume:
        kept.append(fill(Volume.new("a"), a="a"))
        return kept[0]

    make()
    assert kept[0].mount_path is not None
    assert "a" == (kept[0] / "a").read_text()
    kept[0].close_sync()


class TestAConstant:
    def test_that_is_a_writer_is_refused_when_the_workflow_is_compiled(self):
        @workflow
        def wf() -> str:
            return read(data=fill(Volume.new("constant"), a="a"))

        with counted() as commits, pytest.raises(Exception, match="'constant' is a writer, and cannot be a constant"):
            wf()
        assert [] == commits.versions

    @pytest.mark.loud  # flytekit says that it cannot pickle one with changes, and goes on without
    @pytest.mark.parametrize("value", [lambda: Volume.new("new"), lambda: fill(made("old").fork_sync("new"), a="a")])
    def test_that_is_a_default_of_a_launch_plan_is_refused_where_it_would_be_committed(self, value):
        @workflow
        def wf(data: RWVolume) -> str:
            return read(data=data)

        writer = value()
        with counted() as commits, pytest.raises(Exception, match="'new' has something that is not committed"):
            LaunchPlan.create(f"plan of a writer {id(value)}", wf, default_inputs={"data": writer})
        assert [] == commits.versions

    def test_that_is_a_fork_which_nobody_wrote_to_is_the_version_it_was_made_from(self):
        @workflow
        def wf(data: RWVolume) -> str:
            return read(data=data)

        assert (
            "a" == LaunchPlan.create("plan of a fork", wf, default_inputs={"data": made("v", a="a").fork_sync("f")})()
        )

    @pytest.mark.parametrize("hold", [Data, lambda writer: Model(several=[writer])])
    def test_in_a_field_is_refused_as_well(self, hold):
        @task
        def reads(data: Data) -> int:
            return 1

        @task
        def reads_model(data: Model) -> int:
            return 1

        @workflow
        def wf() -> int:
            value = hold(fill(Volume.new("constant"), a="a"))
            return reads(data=value) if isinstance(value, Data) else reads_model(data=value)

        with counted() as commits, pytest.raises(Exception, match=r"'constant'.*commit"):
            wf()
        assert [] == commits.versions

    @pytest.mark.loud  # flytekit says that it cannot pickle one with changes, and goes on without
    def test_in_a_field_is_not_committed_where_a_client_makes_a_literal_of_it(self):
        declared = TypeEngine.to_literal_type(Data)
        context = FlyteContextManager.current_context()
        version = made("old", a="a")

        with counted() as commits:
            for writer in (fill(Volume.new("new"), a="a"), Volume.new("none"), fill(version.fork_sync("fork"), a="b")):
                with pytest.raises(Exception, match="nothing runs here that would commit it"):
                    TypeEngine.to_literal(context, Data(writer), Data, declared)
            TypeEngine.to_literal(context, Data(version.fork_sync("clean")), Data, declared)
        assert [] == commits.versions


def test_a_writer_given_to_a_workflow_that_is_called_is_committed():
    @workflow
    def wf(data: ROVolume) -> str:
        return read(data=data)

    with counted() as commits:
        assert "a" == wf(data=fill(Volume.new("given"), a="a"))
    assert 1 == len(commits.versions)


def test_a_writer_within_a_dynamic_workflow_is_committed():
    @dynamic
    def grow() -> str:
        return read(data=fill(Volume.new("given"), a="a"))

    @workflow
    def wf() -> str:
        return grow()

    assert "a" == wf()


def outputs():
    """Tasks that return one writer each, in everything that can hold it."""
    new = Volume.new

    @task
    def alone() -> RWVolume:
        return fill(new("a"), a="a")

    @task
    def optional() -> RWVolume | None:
        return fill(new("a"), a="a")

    @task
    def union() -> RWVolume | int:
        return fill(new("a"), a="a")

    @task
    def in_list() -> list[RWVolume]:
        return [fill(new("a"), a="a")]

    @task
    def in_dictionary() -> dict[str, list[RWVolume]]:
        return {"a": [fill(new("a"), a="a")]}

    @task
    def optional_list() -> list[RWVolume] | None:
        return [fill(new("a"), a="a")]

    @task
    def field() -> Data:
        return Data(fill(new("a"), a="a"))

    @task
    def optional_field() -> Data | None:
        return Data(fill(new("a"), a="a"))

    @task
    def union_field() -> Either:
        return Either(fill(new("a"), a="a"), [])

    @task
    def union_in_field() -> Either:
        return Either("text", [3, fill(new("a"), a="a")])

    @task
    def in_model() -> Model:
        return Model(several=[fill(new("a"), a="a")])

    @task
    def optional_model() -> Model | None:
        return Model(several=[fill(new("a"), a="a")])

    return [
        alone,
        optional,
        union,
        in_list,
        in_dictionary,
        optional_list,
        field,
        optional_field,
        union_field,
        union_in_field,
        in_model,
        optional_model,
    ]


OUTPUTS = pytest.mark.parametrize("make", outputs(), ids=lambda make: make.name.rpartition(".")[2])


class TestACommitThatFails:
    @OUTPUTS
    def test_for_the_moment_is_an_error_that_flytekit_retries_wherever_the_volume_is(self, make):
        with failing("transient"), pytest.raises(FlyteUploadDataException, match="not committed: injected") as caught:
            make()
        assert isinstance(caught.value.__cause__, StorageError)

    @OUTPUTS
    def test_for_good_is_the_error_itself_wherever_the_volume_is(self, make):
        with failing("permanent"), pytest.raises(Exception, match="injected: ") as caught:
            make()
        assert not isinstance(caught.value, FlyteUploadDataException)

    def test_because_of_the_machine_is_retried_on_another(self):
        with failing("os"), pytest.raises(FlyteUploadDataException, match=r"'a' was not committed: .*No space left"):
            outputs()[0]()

    def test_keeps_what_was_written_for_whoever_recovers_it(self):
        kept: list[RWVolume] = []

        @task
        def make() -> RWVolume:
            kept.append(fill(Volume.new("a"), a="a"))
            return kept[0]

        with failing("transient"), pytest.raises(FlyteUploadDataException):
            make()
        work_id = kept[0].close_sync()
        assert work_id is not None
        assert {"a": "a"} == contents(Volume.recover_sync(work_id).finalize_sync())

    def test_by_a_conflict_is_the_conflict(self):
        made("shared", a="base")

        @task
        def make() -> RWVolume:
            mine = Volume.from_name_sync("shared", on_conflict="error")
            theirs = Volume.from_name_sync("shared")
            fill(mine, a="mine")
            fill(theirs, a="theirs").finalize_sync()
            return mine

        with pytest.raises(ConflictError, match="a"):
            make()


class Stubborn(BaseModel):
    number: int

    def model_dump_json(self, **options):
        raise KeyError("of a user's own")


def test_other_failures_of_models_are_flytekits():
    transformer = TypeEngine.get_transformer(Stubborn)
    with pytest.raises(KeyError, match="of a user's own"):
        transformer.to_literal(FlyteContextManager.current_context(), Stubborn(number=1), Stubborn, None)
