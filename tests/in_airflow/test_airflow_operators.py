"""Operators on volumes: what they make, and what they leave alone when they fail."""

from __future__ import annotations

import pytest
from airflow_kit import Supervisor, made, returned, run_task, texts, written

from volume_airflow import calling, compat
from volume_airflow.compat import DAG, BaseOperator, task
from volume_airflow.operators.volume import VolumeCommitOperator, VolumeMergeOperator, VolumePromoteOperator
from volume_core import ConflictError, ExistsError, ROVolume, Volume, VolumeError


@pytest.fixture(params=["with the listener", "without it"])
def listener(request, monkeypatch):
    """The plugin's listener, and none."""
    if request.param == "without it":
        monkeypatch.setattr(calling, "wrap", lambda ti: None)


def in_a_dag(make):
    """The DAG in which *make* makes an operator."""
    with DAG("operators", schedule=None) as dag:
        make()
    return dag


def run_one(operator_class, supervisor=None, **fields):
    """What an operator returns; raises what it raises."""
    dag = in_a_dag(lambda: operator_class(task_id="it", **fields))
    supervisor = supervisor or Supervisor()
    ended = run_task(dag.get_task("it"), supervisor)
    if ended.error is not None:
        raise ended.error
    return returned(supervisor, "it")


def head(name):
    return Volume.from_name_sync(name).committed


# -- commit


def test_a_directory_is_put_into_a_volume_that_is_made(tmp_path, listener):
    (tmp_path / "new" / "deep").mkdir(parents=True)
    (tmp_path / "new" / "deep" / "a").write_text("1")
    version = run_one(
        VolumeCommitOperator, volume="data", source=str(tmp_path / "new"), target="/in", labels={"k": "v"}
    )
    assert isinstance(version, ROVolume)
    assert version == head("data")
    assert b"1" == b"".join(version.read_file_sync("in/deep/a"))
    assert "operators.it a-run, try 1" == version.message
    assert {"k": "v"} == dict(version._version().manifest.labels)
    assert 1 == len(version.log_sync()), "no version without the labels was the head meanwhile"


def test_what_is_there_already_is_labelled_by_a_version_of_its_own(tmp_path):
    (tmp_path / "a").write_text("1")
    before = run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "a"))
    version = run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "a"), labels={"k": "v"})
    assert {"k": "v"} == dict(version._version().manifest.labels)
    assert [version.locator, before.locator] == [entry.volume.locator for entry in version.log_sync()]
    assert {"a": "1"} == texts(version)


def test_a_file_is_put_beside_what_is_there(tmp_path):
    made(name="data", a="1")
    (tmp_path / "b").write_text("2")
    assert {"a": "1", "b": "2"} == texts(run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "b")))


def test_files_that_are_there_are_replaced_only_if_that_is_said(tmp_path):
    before = made(name="data", a="1")
    (tmp_path / "a").write_text("2")
    with pytest.raises(ExistsError):
        run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "a"), replace=False)
    assert before == head("data")
    assert {"a": "2"} == texts(run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "a")))


def test_without_a_source_the_head_is_committed_once_more():
    before = made(name="data", a="1")
    now = run_one(VolumeCommitOperator, volume="data", message="checked {{ ti.task_id }}", labels={"ok": "yes"})
    assert now != before
    assert "checked it" == now.message
    assert texts(now) == texts(before)


def test_a_version_is_forked_and_another_volumes_tree_is_put_into_it(monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    base, other = made(name="data", a="1"), made(name="other", b="2")
    now = run_one(VolumeCommitOperator, volume=base, source=other)
    assert {"a": "1", "b": "2"} == texts(now)
    assert now == head("data")


def test_a_source_that_is_not_there_is_said_and_nothing_is_made(tmp_path):
    with pytest.raises(VolumeError, match="is not there, on "):
        run_one(VolumeCommitOperator, volume="data", source=str(tmp_path / "nothing"))
    assert [] == Volume.list_sync()


# -- merge


def forked(base, name, **files):
    return written(base.fork_sync(name), files).finalize_sync()


def test_versions_of_many_tasks_become_the_head_of_one_volume(listener):
    base = made(name="data", a="1")
    parts = [forked(base, f"part-{each}", **{each: each}) for each in "bc"]
    later = written(Volume.from_name_sync("data"), {"d": "4"}).finalize_sync()
    merged = run_one(VolumeMergeOperator, versions=parts, name="data")
    assert merged == head("data")
    assert {"a": "1", "b": "b", "c": "c", "d": "4"} == texts(merged)
    assert later.locator in merged._version().manifest.parents


def test_what_a_mapped_task_has_returned_is_merged(listener):
    base = made(name="data", a="1")
    with DAG("mapped", schedule=None) as dag:

        @task
        def part(each):
            return forked(base, f"part-{each}", **{each: each})

        VolumeMergeOperator(task_id="merge", versions=part.expand(each=["b", "c"]), name="data")

    supervisor = Supervisor()
    for index, each in enumerate("bc"):
        mapped = dag.get_task("part").unmap({"op_kwargs": {"each": each}})
        assert run_task(mapped, supervisor, map_index=index).error is None
    assert run_task(dag.get_task("merge"), supervisor).error is None
    assert {"a": "1", "b": "b", "c": "c"} == texts(returned(supervisor, "merge"))


def test_a_merge_into_a_volume_that_is_not_there_makes_it():
    base = made(name="base", a="1")
    parts = [forked(base, f"part-{each}", **{each: each}) for each in "bc"]
    assert {"a": "1", "b": "b", "c": "c"} == texts(run_one(VolumeMergeOperator, versions=parts, name="fresh"))
    assert {"a", "b", "c"} == set(texts(head("fresh")))


def test_one_version_alone_is_merged_into_the_head():
    base = made(name="data", a="1")
    part = forked(base, "part", b="2")
    assert {"a": "1", "b": "2"} == texts(run_one(VolumeMergeOperator, versions=part, name="data"))
    assert run_one(VolumeMergeOperator, versions=part, name="other") == head("other")


def test_a_conflict_publishes_nothing_unless_it_is_said_which_one_counts():
    base = made(name="data", a="1")
    parts = [forked(base, f"part-{each}", a=each) for each in "xy"]
    with pytest.raises(ConflictError) as raised:
        run_one(VolumeMergeOperator, versions=parts, name="data")
    assert ("a",) == raised.value.paths
    assert base == head("data")
    assert {"a": "y"} == texts(run_one(VolumeMergeOperator, versions=parts, name="data", on_conflict="theirs"))


def test_a_head_that_moves_while_versions_are_merged_is_merged_too(monkeypatch):
    base = made(name="data", a="1")
    part = forked(base, "part", b="2")
    merge, others = Volume.merge_sync.__func__, iter(["c", "d"])

    def others_commit_first(cls, *args, **options):
        if (name := next(others, None)) is not None:
            written(Volume.from_name_sync("data"), {name: name}).finalize_sync()
        return merge(cls, *args, **options)

    monkeypatch.setattr(Volume, "merge_sync", classmethod(others_commit_first))
    merged = run_one(VolumeMergeOperator, versions=[part], name="data")
    assert merged == head("data")
    assert {"a": "1", "b": "2", "c": "c", "d": "d"} == texts(merged)


def test_to_merge_again_changes_nothing():
    base = made(name="data", a="1")
    part = forked(base, "part", b="2")
    once = run_one(VolumeMergeOperator, versions=[part], name="data")
    assert once == run_one(VolumeMergeOperator, versions=[part], name="data")


def test_tasks_that_were_skipped_are_passed_over_but_one_version_there_must_be():
    base = made(name="data", a="1")
    assert base == run_one(VolumeMergeOperator, versions=[None, base], name="data")
    with pytest.raises(VolumeError, match="given no version to merge"):
        run_one(VolumeMergeOperator, versions=[None, None], name="data")


# -- promote


def test_a_checked_version_is_published_under_another_name_with_a_tag(listener):
    checked = made(name="staging", a="1")
    published = run_one(VolumePromoteOperator, version=checked, name="prod", tag="v1")
    assert published == head("prod")
    assert published == Volume.from_name_sync("prod", version="v1")


def test_a_head_goes_back_to_a_version_by_its_tag():
    first = made(name="data", a="1")
    first.tag_sync("good")
    written(Volume.from_name_sync("data"), {"a": "2"}).finalize_sync()
    assert first == run_one(VolumePromoteOperator, version="data:good")
    assert first == head("data")


def test_a_tag_that_is_another_versions_moves_no_head():
    first = made(name="data", a="1")
    first.tag_sync("v1")
    second = written(Volume.from_name_sync("data"), {"a": "2"}).finalize_sync()
    third = written(Volume.from_name_sync("data"), {"a": "3"}).finalize_sync()
    with pytest.raises(ConflictError):
        run_one(VolumePromoteOperator, version=second, tag="v1")
    assert third == head("data")


def test_a_tag_that_is_another_versions_under_another_name_moves_no_head_either():
    first = made(name="prod", a="1")
    first.tag_sync("v1")
    with pytest.raises(ConflictError, match="'v1' is the tag of another version of 'prod'"):
        run_one(VolumePromoteOperator, version=made(name="staging", a="2"), name="prod", tag="v1")
    assert first == head("prod")


def test_a_try_after_one_that_was_killed_ends_with_the_version_that_has_the_tag():
    checked = made(name="staging", a="1")
    published = run_one(VolumePromoteOperator, version=checked, name="prod", tag="v1")
    assert published == run_one(VolumePromoteOperator, version=checked, name="prod", tag="v1")
    assert published == head("prod")


# -- what Airflow does


def test_a_mixin_with_a_plain_init_breaks_an_operator_so_ours_write_theirs_in_the_class_itself():
    class Mixin:
        def __init__(self, *, volume=None, **kwargs):
            super().__init__(**kwargs)
            self.volume = volume

    def broken():
        class Broken(Mixin, BaseOperator):
            pass

        Broken(task_id="x")

    with pytest.raises((AttributeError, TypeError)):
        broken()
    for each in (VolumeCommitOperator, VolumeMergeOperator, VolumePromoteOperator):
        assert "__init__" in vars(each)


def test_default_arguments_of_the_dag_reach_our_operators():
    with DAG("defaults", schedule=None, default_args={"volume_conn_id": "team"}):
        assert "team" == VolumeMergeOperator(task_id="merge", versions=[]).volume_conn_id


@pytest.mark.skipif(not compat.IS_3, reason="there it gets the result")
def test_post_execute_gets_no_result_so_operators_do_their_work_in_execute():
    heard = []

    class Heard(BaseOperator):
        def execute(self, context):
            return 1

        def post_execute(self, context, result=None):
            heard.append(result)

    run_one(Heard)
    assert [None] == heard
    for each in (VolumeCommitOperator, VolumeMergeOperator, VolumePromoteOperator):
        assert "post_execute" not in vars(each)
