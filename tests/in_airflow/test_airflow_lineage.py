"""Commits of a task are events of assets, whose `extra` is the version; and a volume is one asset, whoever names it."""

from __future__ import annotations

import json

import pytest
from airflow.sdk import DAG, Asset, task
from airflow_kit import Supervisor, made, returned, run_task, written

from volume_airflow import lineage
from volume_airflow.assets.vol import asset_of, is_volume, sanitize_uri, uri_of, volume_asset
from volume_core import ROVolume, Volume
from volume_core.facade.addresses import url_of
from volume_core.facade.naming import place_of


def events(supervisor):
    """What the last task that ended well has told: (outlets, events)."""
    [message] = [each for each in supervisor.sent if type(each).__name__ == "SucceedTask"][-1:]
    return message.task_outlets, message.outlet_events


def ran(function, name="lineage", **options):
    """The supervisor, after one task has run *function*."""
    with DAG(name, schedule=None) as dag:
        operator = task(function, task_id="make", **options)()
    supervisor = Supervisor()
    ended = run_task(operator.operator, supervisor)
    supervisor.sent.append(ended.message)
    assert ended.error is None, dag
    return supervisor


def make():
    return written(Volume.new("raw"), {"a": "1"})


# -- events


def test_a_commit_is_an_event_of_an_asset_that_nobody_declared():
    supervisor = ran(make)
    version = returned(supervisor, "make")

    outlets, [event] = events(supervisor)

    assert [("volumes", "AssetAlias")] == [(each.name, each.type) for each in outlets]
    assert "volumes" == event["source_alias_name"]
    assert uri_of(version.store_url, "raw") == event["dest_asset_key"]["uri"]
    assert {
        "volume": "raw", "version": version.version, "locator": version.locator, "message": version.message,
        "url": url_of(version.locator), "used_bytes": 1, "inode_count": version.inode_count, "parents": [],
        "versions": [version.version],
    } == event["extra"]  # fmt: skip


@pytest.mark.parametrize("uri", ["vol://raw", "vol://raw/", None])
def test_airflow_adds_a_slash_to_uris_and_a_declared_outlet_is_found_all_the_same(uri):
    asset = Asset("raw", uri) if uri else volume_asset("raw")
    supervisor = ran(make, outlets=[asset])

    outlets, [event] = events(supervisor)

    assert ["Asset"] == [each.type for each in outlets]  # no alias beside it
    assert asset.uri == event["dest_asset_key"]["uri"]
    assert returned(supervisor, "make").locator == event["extra"]["locator"]


def test_what_a_task_says_of_its_outlet_itself_stays():
    asset = volume_asset("raw")

    def say(*, outlet_events):
        outlet_events[asset].extra = {"rows": 3}
        return written(Volume.new("raw"), {"a": "1"})

    _, [event] = events(ran(say, outlets=[asset]))

    assert 3 == event["extra"]["rows"]
    assert "version" in event["extra"]


def test_an_outlet_that_is_another_volume_is_not_filled_in():
    supervisor = ran(make, outlets=[volume_asset("other"), Asset("s3", "s3://bucket/raw")])

    outlets, told = events(supervisor)

    assert ["Asset", "Asset", "AssetAlias"] == [each.type for each in outlets]
    assert ["volumes"] == [each["source_alias_name"] for each in told]


@pytest.mark.parametrize("is_declared", [True, False])
def test_several_commits_of_one_volume_are_one_event_with_the_last_version(is_declared):
    versions = []

    def twice():
        volume = Volume.new("raw")
        for number in range(3):
            root = volume.mount_sync(driver="copy") if volume.mount_path is None else volume.mount_path
            (root / "a").write_text(str(number))
            versions.append(volume.commit_sync())
        return volume

    supervisor = ran(twice, outlets=[volume_asset("raw")] if is_declared else [])
    _, [event] = events(supervisor)

    assert returned(supervisor, "make").version == event["extra"]["version"] == versions[-1].version
    assert [each.version for each in versions] == event["extra"]["versions"]
    assert [versions[1].locator] == event["extra"]["parents"]


def test_several_volumes_are_several_events():
    def several():
        return [written(Volume.new(name), {"a": "1"}) for name in ("one", "two")]

    outlets, told = events(ran(several, outlets=[volume_asset("two")]))

    assert ["one"] == [each["extra"]["volume"] for each in told if "source_alias_name" in each]
    assert ["two"] == [each["extra"]["volume"] for each in told if "source_alias_name" not in each]
    assert ["Asset", "AssetAlias"] == [each.type for each in outlets]


def test_each_mapped_task_has_events_of_its_own():
    with DAG("mapped_lineage", schedule=None):

        @task
        def part(number):
            return written(Volume.new(f"part-{number}"), {"a": str(number)})

        operator = part(7).operator
    told = []
    for index in (0, 1):
        supervisor = Supervisor()
        operator.op_args = [index]
        ended = run_task(operator, supervisor, map_index=index)
        supervisor.sent.append(ended.message)
        told += events(supervisor)[1]

    assert ["part-0", "part-1"] == [each["extra"]["volume"] for each in told]


def test_a_task_that_fails_makes_no_event():
    def fail():
        written(Volume.new("raw"), {"a": "1"}).commit_sync()
        raise RuntimeError("no")

    with DAG("failing_lineage", schedule=None):
        operator = task(fail, task_id="make")().operator
    supervisor = Supervisor()

    ended = run_task(operator, supervisor)

    assert "failed" == ended.state
    assert [] == [each for each in (*supervisor.sent, ended.message) if getattr(each, "outlet_events", None)]


def test_a_version_that_is_passed_on_is_no_event():
    version = made("raw", a="1")

    outlets, told = events(ran(lambda: version))

    assert ([], []) == (outlets, told)


def test_a_commit_in_a_thread_of_the_task_is_an_event_too():
    import threading

    def in_a_thread():
        volume = written(Volume.new("raw"), {"a": "1"})
        thread = threading.Thread(target=volume.commit_sync)
        thread.start()
        thread.join()

    assert ["raw"] == [each["extra"]["volume"] for each in events(ran(in_a_thread))[1]]


def test_an_explicit_push_is_an_event_too():
    def push(*, ti):
        ti.xcom_push("side", written(Volume.new("raw"), {"a": "1"}))

    assert ["raw"] == [each["extra"]["volume"] for each in events(ran(push))[1]]


# -- opting out


def test_the_configuration_turns_events_off(monkeypatch):
    monkeypatch.setenv("AIRFLOW__VOLUME__ASSETS", "False")

    assert ([], []) == tuple(events(ran(make)))


def test_a_task_turns_its_events_off():
    outlets, told = events(ran(lineage.no_assets(make_again)))

    assert ([], []) == (outlets, told)


def make_again():
    return written(Volume.new("raw"), {"a": "1"})


def test_outside_a_task_nothing_is_told():
    made("raw", a="1")
    lineage.committed(made("other", a="1"), None)
    lineage.mounted(None, None)


@pytest.mark.loud
def test_an_event_that_cannot_be_made_fails_no_task(monkeypatch):
    def broken(*_):
        raise RuntimeError("no such thing in this release")

    monkeypatch.setattr(lineage, "_tell", broken)

    assert type(returned(ran(make), "make")) is ROVolume


# -- identity


def test_a_volume_is_one_asset_whoever_names_it():
    store = place_of(None).url
    asset, same = volume_asset("raw"), volume_asset("raw", store)

    written_down = Asset(uri_of(store, "raw"))

    assert asset == same == asset_of(store, "raw") == written_down
    assert asset != volume_asset("raw", "s3://bucket/prefix")


def test_an_asset_in_a_dag_file_is_in_the_store_that_tasks_have_by_default(monkeypatch, tmp_path):
    """No task runs there, and a schedule on an asset of some other place would never be due."""
    monkeypatch.setenv("AIRFLOW__VOLUME__STORE", str(tmp_path / "of the settings"))
    by_settings = volume_asset("raw")
    said = {"conn_type": "volume", "host": str(tmp_path / "of the connection")}
    monkeypatch.setenv("AIRFLOW_CONN_VOLUME_DEFAULT", json.dumps(said))
    by_connection = volume_asset("raw")
    monkeypatch.setenv("VOLUME_BUCKET", str(tmp_path / "of the environment"))
    by_environment = volume_asset("raw")

    assert volume_asset("raw", str(tmp_path / "of the settings")) == by_settings
    assert volume_asset("raw", str(tmp_path / "of the connection")) == by_connection
    assert volume_asset("raw", str(tmp_path / "of the environment")) == by_environment


def test_the_first_argument_of_an_asset_is_its_name_and_a_volume_has_its_uri_for_one():
    asset = volume_asset("raw", "s3://bucket/prefix")

    assert "vol://s3+bucket/prefix/-/raw" == asset.uri == asset.name


def test_airflow_takes_marks_out_of_uris_and_none_of_a_volume_has_them():
    stores = [place_of(f"/srv/a{mark}b").url for mark in ("", "#1", "#2", "?c=1", "%231", "%", " ")]
    stores += [f"s3://bucket/a{mark}b" for mark in ("", "@", "+", "~")]
    assets = [volume_asset("raw", store) for store in stores]

    assert len(stores) == len({each.uri for each in assets})
    for asset, store in zip(assets, stores, strict=True):
        assert uri_of(store, "raw") == asset.uri
        assert 1 == sum(is_volume(asset.uri, each, "raw") for each in stores)


@pytest.mark.parametrize("uri", ["vol://raw~tag", "vol://raw/a/path", "vol://", "vol://raw?x=1"])
def test_a_uri_that_is_no_volume_is_refused(uri):
    from urllib.parse import urlsplit

    with pytest.raises(ValueError, match="vol://"):
        sanitize_uri(urlsplit(uri))


def test_a_name_that_can_name_no_volume_is_refused():
    with pytest.raises(ValueError, match="cannot name a volume"):
        volume_asset("no/name")
