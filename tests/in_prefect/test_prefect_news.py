"""What people see of commits: on a real server, as it was stored there; and that no task fails for it."""

from __future__ import annotations

import asyncio
import base64
import gc
import re
import socket
import threading
import time
import uuid
import xml.etree.ElementTree as ET

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.context import AssetContext
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect_kit import made

from volume_core import ActionRef, ROVolume, RWVolume, Volume, VolumeError, hookimpl
from volume_core.facade.addresses import url_of
from volume_core.plugins.manager import register
from volume_prefect import news
from volume_prefect.automations import run_on_new_version


@pytest.fixture
def store(tmp_path):
    return f"file://{tmp_path}/store"


def commit(volume: RWVolume, data: bytes, message: str = "") -> ROVolume:
    with volume.mounted_sync(driver="copy") as path:
        (path / "file").write_bytes(data)
        return volume.commit_sync(message)


def artifacts(run_id: str):
    ids = ArtifactFilterFlowRunId(any_=[uuid.UUID(run_id)])
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ids))


def events(name: str, resource: str, count: int):
    """The events *name* of *resource*, once there are *count*."""
    wanted = EventFilter(event=EventNameFilter(name=[name]), resource=EventResourceFilter(id=[resource]))
    end = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            answer = client.request(
                "POST", "/events/filter", json={"filter": wanted.model_dump(mode="json"), "limit": 50}
            )
            found = answer.json()["events"]
            if len(found) >= count:
                return found
            time.sleep(0.3)
    raise AssertionError(f"{len(found)} events {name} of {resource}, not {count}")


# -- the page


def test_every_version_has_a_page_with_its_facts_and_a_picture(server, store):
    @task
    def work():
        volume = Volume.new("My.data", store)
        commit(volume, b"x" * 10, "first of all")
        return commit(volume, b"x" * 5000, "more").version

    @flow
    def pipeline():
        return work(), flow_run.id

    version, run = pipeline()
    first, second = sorted(artifacts(run), key=lambda each: each.created)
    assert first.key == second.key == news.artifact_key(store, "My.data")
    assert re.fullmatch(r"volume-my-data-[0-9a-f]{8}", first.key)
    assert first.task_run_id is not None
    assert "first of all" in first.data
    assert version in second.data
    assert "### What changed against its parent" in second.data
    [address] = re.findall(r"!\[[^]]*\]\((data:image/svg\+xml;base64,[^)]*)\)", second.data)
    assert len(ET.fromstring(base64.b64decode(address.partition(",")[2])).findall("{*}circle")) == 2


def test_a_commit_of_a_thread_that_prefect_knows_nothing_of_is_the_flow_runs(server, store):
    @flow
    def pipeline():
        volume = Volume.new("data", store)
        volume.mount_sync(driver="copy")
        thread = threading.Thread(target=volume.commit_sync)
        thread.start()
        thread.join()
        volume.finalize_sync()
        return flow_run.id

    run = pipeline()
    [page] = artifacts(run)
    assert page.task_run_id is None
    [event] = events("volume.committed", news.resource_of(store, "data"), 1)
    assert f"prefect.flow-run.{run}" in {each["prefect.resource.id"] for each in event["related"]}


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_a_flow_in_an_event_loop_has_pages_too(server, store):
    @flow
    async def pipeline():
        volume = Volume.new("data", store)
        async with volume.mounted(driver="copy") as path:
            (path / "file").write_text("x")
        return flow_run.id

    run = asyncio.run(pipeline())  # Prefect's client leaves a socket of every asynchronous flow to the collector
    gc.collect()
    assert len(artifacts(run)) == 1


@pytest.mark.parametrize(("one", "other"), [("a.b", "a-b"), ("A", "a"), ("a_", "a")])
def test_volumes_with_names_that_look_alike_have_pages_of_their_own(store, one, other):
    assert news.artifact_key(store, one) != news.artifact_key(store, other)


# -- the event


def test_a_commit_is_an_event_of_the_volume_with_its_parents_and_its_run(server, store):
    @flow
    def pipeline():
        volume = Volume.new("events", store)
        first = commit(volume, b"1", "one")
        fork = first.fork_sync("copy")
        return first, commit(fork, b"22", "two"), flow_run.id

    first, second, run = pipeline()
    [event] = events("volume.committed", news.resource_of(store, "copy"), 1)
    assert event["resource"]["volume.version"] == second.version
    assert ROVolume.model_validate(event["resource"]["volume.url"]) == second
    assert ROVolume.model_validate(event["resource"]["volume.locator"]) == second
    assert (event["payload"]["message"], event["payload"]["parents"]) == ("two", [first.locator])
    related = {(each["prefect.resource.id"], each["prefect.resource.role"]) for each in event["related"]}
    assert (news.resource_of(store, "events"), "volume-parent") in related
    assert (f"prefect.flow-run.{run}", "flow-run") in related


# -- assets


def test_a_plain_task_materializes_the_volume_from_what_it_was_given_and_mounted(server, store):
    given = commit(Volume.new("given", store), b"1")
    mounted = commit(Volume.new("mounted", store), b"2")

    @task
    def work(inputs: dict):
        with mounted.mounted_sync(driver="copy"):
            pass
        return commit(Volume.new("made", store), b"3", "made of two")

    @flow
    def pipeline():
        return work({"deep": [given]})

    version = pipeline()
    [event] = events("prefect.asset.materialization.succeeded", news.resource_of(store, "made"), 1)
    upstream = {each["prefect.resource.id"] for each in event["related"] if each["prefect.resource.role"] == "asset"}
    assert upstream == {news.resource_of(store, "given"), news.resource_of(store, "mounted")}
    assert event["payload"]["version"] == version.version
    assert event["payload"]["message"] == "made of two"


def test_a_volume_is_not_upstream_of_itself_and_reaches_the_next_task(server, store):
    @task
    def make():
        return commit(Volume.from_name_sync("line", store, create_if_missing=True), b"1")

    @task
    def grow(before):
        return commit(Volume.from_name_sync("line", store), b"22")

    @task
    def derive(before):
        return commit(Volume.new("derived", store), b"333")

    @flow
    def pipeline():
        derive(grow(make()))

    pipeline()
    for event in events("prefect.asset.materialization.succeeded", news.resource_of(store, "line"), 2):
        own = [each for each in event["related"] if each["prefect.resource.role"] == "asset"]
        assert own == [] or own == [{"prefect.resource.id": news.resource_of(store, "line"), **own[0]}]
    [event] = events("prefect.asset.materialization.succeeded", news.resource_of(store, "derived"), 1)
    assert news.resource_of(store, "line") in {each["prefect.resource.id"] for each in event["related"]}


def test_the_class_that_assets_are_added_to_has_what_is_used_of_it():
    fields = AssetContext.model_fields
    assert {"downstream_assets", "direct_asset_dependencies", "materialization_metadata"} <= fields.keys()
    assert callable(AssetContext.add_asset_metadata)
    assert callable(AssetContext.update_tracked_assets)


# -- progress


def test_a_commit_that_takes_long_shows_how_far_it_is(server, store, monkeypatch):
    monkeypatch.setattr(news, "LONG_S", 0.2)
    monkeypatch.setattr(news, "_EVERY_S", 0.1)
    monkeypatch.setenv("VOLUME_PREFECT_NEWS", "progress")
    seen: list[float] = []
    holding, go_on = threading.Event(), threading.Event()

    class Storing:
        """Keeps a pack back until its commit has been seen to be under way."""

        @hookimpl(tryfirst=True)
        def volume_open_store(self, url):
            if not url.startswith("memory://slow"):
                return None
            from volume_core.storage.memory import MemoryStore

            class Held(MemoryStore):
                def put_new(self, name, data):
                    if name.startswith("packs/"):
                        holding.set()
                        assert go_on.wait(60)
                    super().put_new(name, data)

            return Held(url.removeprefix("memory://"))

    forget = register(Storing())

    @flow
    def pipeline():
        volume = Volume.new("big", "memory://slow")
        (volume.mount_sync(driver="copy") / "file").write_bytes(b"x" * 3_000_000)
        volume.finalize_sync()
        return flow_run.id

    def look():
        assert holding.wait(60)
        end = time.monotonic() + 60
        while time.monotonic() < end and not seen:
            with get_client(sync_client=True) as client:
                seen.extend(float(each.data) for each in client.read_artifacts() if each.type == "progress")
            time.sleep(0.2)
        go_on.set()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        run = pipeline()
    finally:
        go_on.set()
        looking.join()
        forget()
    assert seen == [0.0]
    for thread in threading.enumerate():
        if thread.name == "volume-progress":
            thread.join(30)
    [shown] = artifacts(run)
    assert (shown.type, float(shown.data)) == ("progress", 100.0)
    assert "big" in shown.description


def test_a_commit_that_is_quick_shows_no_progress(server, store, monkeypatch):
    monkeypatch.setenv("VOLUME_PREFECT_NEWS", "progress")

    @flow
    def pipeline():
        commit(Volume.new("small", store), b"x")
        return flow_run.id

    assert artifacts(pipeline()) == []


# -- that no task fails for it


@pytest.mark.loud
def test_an_api_that_refuses_pages_costs_a_line_in_the_log_and_no_run(server, store, monkeypatch, caplog):
    class Broken:
        def __init__(self, **_kwargs):
            raise OSError("no route to host")

    monkeypatch.setattr(news, "get_client", Broken)
    monkeypatch.setattr(news.lineage, "produced", lambda *_args: 1 / 0)

    @task
    def work():
        return commit(Volume.new("kept", store), b"x")

    @flow
    def pipeline():
        return work()

    assert pipeline().name == "kept"
    assert "the page about a commit could not be made: OSError: no route to host" in caplog.text
    assert "the asset about a commit could not be made: ZeroDivisionError" in caplog.text
    events("volume.committed", news.resource_of(store, "kept"), 1)  # what did not fail is there


def test_outside_of_a_run_nothing_is_made(store, monkeypatch):
    monkeypatch.setattr(news, "get_client", lambda **_kwargs: pytest.fail("asked the API"))
    monkeypatch.setattr(news, "emit_event", lambda *_args, **_kwargs: pytest.fail("told the API"))
    commit(Volume.new("alone", store), b"x")


def test_what_is_wanted_is_said_in_one_variable(monkeypatch):
    assert news.wanted() == {"page", "progress", "event", "asset"}
    monkeypatch.setenv("VOLUME_PREFECT_NEWS", "event, asset")
    assert news.wanted() == {"event", "asset"}
    monkeypatch.setenv("VOLUME_PREFECT_NEWS", "none")
    assert news.wanted() == set()
    monkeypatch.setenv("VOLUME_PREFECT_NEWS", "pages")
    with pytest.raises(VolumeError, match=r"names 'pages'; there are page, progress"):
        news.wanted()


# -- the automation


def test_an_automation_runs_a_deployment_with_each_new_version(server, store):
    @flow
    def consumer(data: str = ""):
        return data

    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(consumer), name=f"on-{uuid.uuid4().hex[:6]}")
    automation = run_on_new_version("watched", deployment, store=store).create()

    @flow
    def producer():
        return commit(Volume.new("watched", store), b"x"), commit(Volume.new("other", store), b"x")

    versions = []
    try:
        runs = []
        while not runs and len(versions) < 12:  # the server takes a moment to know of its new automation
            versions.append(producer()[0])
            runs = _runs_of(deployment)
    finally:
        automation.delete()
    assert runs[0].parameters["data"] in [url_of(each.locator) for each in versions]
    assert ROVolume.model_validate(runs[0].parameters["data"]) in versions


def _runs_of(deployment):
    """The runs of *deployment*, once there is one, or 5 seconds later."""
    end = time.monotonic() + 5
    with get_client(sync_client=True) as client:
        while time.monotonic() < end:
            found = [each for each in client.read_flow_runs() if each.deployment_id == deployment]
            if found:
                return found
            time.sleep(0.5)
    return []


@pytest.mark.loud
def test_an_api_that_is_silent_is_not_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(news, "_PATIENCE_S", 0.3)
    monkeypatch.setenv(news.VARIABLE, "page")
    version = made(a="1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}):
            before = time.monotonic()
            news.committed(version, ActionRef(engine="prefect", run=str(uuid.uuid4())))
            took_s = time.monotonic() - before

    assert took_s < 5
    assert "is not waited for" in caplog.text
    for thread in threading.enumerate():
        if thread.name == "volume-page":
            thread.join(20)  # it was hung up on by now
