"""The pages that the API server serves: who may see what, whatever is in a volume, and what a broken store becomes.

The application is mounted by Airflow itself, from the plugin, and users are those of its own auth manager.
"""

from __future__ import annotations

import asyncio
import datetime
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from html import unescape
from urllib.parse import quote

import httpx
import pytest
from airflow.sdk import DAG, task
from airflow_kit import made, written

from volume_airflow.hooks.volume import VolumeHook
from volume_core import Volume
from volume_core.testing.s3server import S3Server

HOSTILE = "<script>alert(1)</script>\"'&"
pytest.importorskip("airflow.api_fastapi", reason="pages are for Airflow 3")


@pytest.fixture(scope="session")
def server(database):
    """Airflow's own API server, with the plugin's application in it, and tokens of users with a role and without."""
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi.testclient import TestClient

    app = create_app(apps="core")
    manager = app.state.auth_manager
    tokens = {
        role: manager.generate_jwt(SimpleAuthManagerUser(username=role, role=None if role == "nobody" else role))
        for role in ("admin", "viewer", "nobody")
    }
    return TestClient(app, raise_server_exceptions=False), tokens


@pytest.fixture(autouse=True)
def known_afresh(monkeypatch):
    """What a test says of connections holds for that test."""
    from volume_airflow.web import access

    monkeypatch.setattr(access, "_known", {})


@pytest.fixture
def get(server):
    """`get(path, role)`: what that user is answered."""
    client, tokens = server

    def ask(path, role="viewer", **options):
        headers = {"Authorization": f"Bearer {tokens[role]}"} if role else {}
        return client.get(f"/volumes{path}", headers=headers, follow_redirects=False, **options)

    return ask


def following(version, files, message=""):
    writer = version.fork_sync(version.name)
    with writer.batch_upload_sync(force=True, message=message) as batch:
        for name, data in files.items():
            batch.put_file(io.BytesIO(data), name)
    return batch.version


def link_called(page, text):
    """Where the link that says *text* leads, below the application."""
    found = re.search(rf'<a[^>]*href="([^"]*)"[^>]*>(?:<[^>]*>)*{re.escape(text)}', page)
    assert found is not None, text
    return unescape(found[1]).removeprefix("/volumes")


# -- who may see what

PAGES = ["/", "/index", "/volume/data", "/volume/data/ab12", "/volume/data/ab12/files", "/volume/data/ab12/file",
         "/volume/data/ab12/changes", "/ti/d/r/t", "/ti/d/r/t/-1/ab12", "/ti/d/r/t/-1/ab12/files",
         "/ti/d/r/t/-1/ab12/file", "/ti/d/r/t/-1/ab12/changes"]  # fmt: skip


def test_the_list_of_pages_here_is_all_of_them():
    from volume_airflow.web.application import make

    assert len(PAGES) == len([route for route in make().routes if "GET" in getattr(route, "methods", ())])


@pytest.mark.parametrize("path", PAGES)
def test_apps_of_plugins_are_not_authenticated_by_default_and_every_page_of_this_one_is(get, path):
    assert 401 == get(path, role=None).status_code
    assert 403 == get(path, role="nobody").status_code


def test_who_may_not_read_the_xcoms_of_a_dag_does_not_see_its_volumes(get, monkeypatch):
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    asked = []

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        asked.append((method, access_entity, details.id))
        return False

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_dag", is_authorized_dag)

    assert 403 == get("/ti/a_dag/r/t").status_code
    assert [("GET", DagAccessEntity.XCOM, "a_dag")] == asked


def test_who_may_not_see_assets_does_not_browse_the_store(get, monkeypatch):
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

    monkeypatch.setattr(SimpleAuthManager, "is_authorized_asset", lambda self, **_: False)

    assert 403 == get("/").status_code


# -- browsing


def test_from_the_list_to_a_volume_a_version_its_files_and_the_bytes_of_one(get):
    version = made("raw", **{"a.txt": "hello"})

    listed = get("/").text
    history = get(link_called(listed, "raw")).text
    page = get(link_called(history, version.version[:12])).text
    files = get(link_called(page, "Files")).text
    answer = get(link_called(files, "a.txt"))

    assert b"hello" == answer.content
    assert "attachment; filename*=UTF-8''a.txt" == answer.headers["content-disposition"]
    assert "application/octet-stream" == answer.headers["content-type"]
    assert "5" == answer.headers["content-length"]


def test_a_page_about_a_file_of_html_is_never_that_html(get):
    version = made("raw", **{"page.html": "<script>alert(1)</script>"})

    answer = get(f"/volume/raw/{version.version}/file?path=page.html")

    assert "attachment" in answer.headers["content-disposition"]
    assert "nosniff" == answer.headers["x-content-type-options"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_version_is_compared_with_its_parent_or_any_other(get):
    first = made("raw", kept="1")
    second = following(first, {"more": b"1"})
    third = following(second, {"most": b"1"})
    third.tag_sync("good")

    against_parent = get(f"/volume/raw/{third.version}/changes").text
    against_first = get(f"/volume/raw/{third.version}/changes?with={first.version[:8]}").text
    by_its_tag = get(f"/volume/raw/{first.version}/changes?with=good").text

    assert "/most" in against_parent and "/more" not in against_parent
    assert "/most" in against_first and "/more" in against_first
    assert "removed" in by_its_tag
    assert "no parent" in get(f"/volume/raw/{first.version}/changes").text


def test_names_and_messages_are_text_on_every_page(get):
    first = made("raw", kept="1")
    version = following(first, {HOSTILE.replace("/", "|"): b"1"}, message=HOSTILE)

    here = f"/volume/raw/{version.version}"
    for path in ("/", f"/?q={quote(HOSTILE)}", "/volume/raw", here, f"{here}/files", f"{here}/changes",
                 f"{here}/changes?with={quote(HOSTILE)}", f"{here}/files?path={quote(HOSTILE)}",
                 f"/volume/{quote(HOSTILE, safe='')}"):  # fmt: skip
        page = get(path).text
        assert "<script>alert" not in page, path
        assert page.startswith("<!DOCTYPE html>"), path


def test_a_name_that_is_no_utf_8_is_listed_and_downloaded(get, tmp_path):
    writer = Volume.new("raw")
    with writer.mounted_sync(driver="copy") as root:
        (root / "\udcff\udcfe?#").mkdir()
        (root / "\udcff\udcfe?#" / "x&y\udcff").write_bytes(b"bytes")
    version = writer.committed

    top = get(f"/volume/raw/{version.version}/files").text
    inner = get(link_called(top, "\\xff\\xfe?#/")).text
    answer = get(link_called(inner, "x&amp;y\\xff"))

    assert b"bytes" == answer.content
    assert "filename*=UTF-8''x%26y%FF" in answer.headers["content-disposition"]


def test_a_path_does_not_leave_its_version(get):
    version = made("raw", a="1")

    assert 404 == get(f"/volume/raw/{version.version}/file?path=../../../../etc/passwd").status_code
    assert 404 == get(f"/volume/raw/{version.version}/file?path=/etc/passwd").status_code
    assert get("/volume/..%2F..%2Fetc").status_code in {400, 404}
    assert get("/volume/%2e%2e/x").status_code in {400, 404}


def test_a_large_directory_comes_in_pages(get):
    version = following(made("raw", z="1"), {f"{number:04}": b"" for number in range(600)})

    first = get(f"/volume/raw/{version.version}/files").text
    second = get(link_called(first, "Next page")).text

    assert "0499" in first and "0500" not in first
    assert "0500" in second and ">z<" in second
    assert "Next page" not in second


def test_many_volumes_come_in_pages_and_are_found_by_a_part_of_their_names(get, monkeypatch):
    from volume_airflow.web import application

    monkeypatch.setattr(application, "VOLUMES_MAX", 2)
    for name in ("alpha", "beta", "gamma"):
        made(name, a="1")

    first = get("/").text
    second = get(link_called(first, "Next")).text

    assert "alpha" in first and "gamma" not in first
    assert "gamma" in second and "alpha" not in second
    assert "beta" in get("/?q=ET").text and "alpha" not in get("/?q=ET").text


def test_an_empty_store_says_so(get):
    assert "There is no volume in this store yet" in get("/").text


# -- where the volumes lie


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A store that no $VOLUME_BUCKET names, with the volume `told` in it; what is given back is its directory."""
    monkeypatch.setenv("VOLUME_BUCKET", str(tmp_path / "team"))
    made("told", a="1")
    monkeypatch.delenv("VOLUME_BUCKET")
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "of the server"))
    return tmp_path / "team"


def test_the_default_store_is_the_one_of_the_settings(get, elsewhere, monkeypatch):
    monkeypatch.setenv("AIRFLOW__VOLUME__STORE", str(elsewhere))

    assert ">told<" in get("/").text
    assert 200 == get("/volume/told").status_code


def test_the_default_store_is_the_one_of_the_default_connection(get, elsewhere, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_VOLUME_DEFAULT", json.dumps({"conn_type": "volume", "host": str(elsewhere)}))

    listed = get("/").text
    history = get(link_called(listed, "told")).text

    assert str(elsewhere) in history
    assert 404 == get("/volume/nobody").status_code


KEY = "AKIATESTTESTTEST"


@pytest.fixture
def bucket(monkeypatch):
    """An S3 that knows one key alone, which a connection has; the keys of this machine's environment are wrong."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with S3Server(access_key=KEY, region="eu-west-1") as s3:
        s3.make_bucket("team")
        extra = {"endpoint_url": s3.endpoint, "region": "eu-west-1"}
        team = {"conn_type": "volume", "host": "s3://team/v", "login": KEY, "password": "secret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_TEAM", json.dumps(team | {"extra": json.dumps(extra)}))
        yield s3


def test_the_keys_of_the_connection_are_there_for_a_page_and_gone_after_it(get, bucket, monkeypatch):
    with VolumeHook("team").use() as store, store.volume("told").batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"hello"), "a.txt")
    monkeypatch.setenv("AIRFLOW__VOLUME__CONN_ID", "team")

    page = get(link_called(get("/").text, "told")).text
    files = get(f"/volume/told/{batch.version.version}/files").text

    assert batch.version.version[:12] in page
    assert b"hello" == get(link_called(files, "a.txt")).content
    assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


def test_a_version_of_a_task_in_another_store_is_shown_with_the_keys_of_that_stores_connection(
    get, bucket, ran, monkeypatch
):
    with VolumeHook("team").use() as store, store.volume("told").batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"hello"), "a.txt")
    page = ran("in_another_store", lambda: batch.version)
    monkeypatch.setenv("AIRFLOW__VOLUME__CONNECTIONS", "team")

    shown = get(f"{page}/-1/{batch.version.version}/files").text

    assert b"hello" == get(link_called(shown, "a.txt")).content
    assert "VOLUME_S3_ACCESS_KEY_ID" not in os.environ


# -- a task instance


@pytest.fixture
def ran(run_dag):
    """`ran(name, function)`: a run of a DAG of that one task, which returns what *function* does."""

    def run(name, function):
        with DAG(name, schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
            task(function, task_id="make")()
        done, _ = run_dag(dag)
        assert done.state == "success"
        return f"/ti/{name}/{quote(done.run_id, safe='')}/make"

    return run


def test_a_task_instance_lists_what_it_returned_with_pages_of_its_own(get, ran):
    def make():
        return {"out": [written(Volume.new("raw"), {"a": "1"})], "n": 3}

    page = ran("pages_of_a_task", make)
    listed = get(f"{page}?map_index=-1").text
    version = get(link_called(listed, "raw")).text
    files = get(link_called(version, "Files")).text

    assert ">return_value<" in listed
    assert b"1" == get(link_called(files, "a")).content


def test_text_that_reads_like_a_version_is_no_volume(get, ran):
    """A command's last line, or what a web server has answered: others write that, and would say what is opened."""
    record = {"name": "raw", "index": made("raw", a="1").locator}
    text = json.dumps({"__classname__": "volume_core.volumes.ROVolume", "__version__": 1, "__data__": record})

    assert "returned no volume" in get(ran("smuggled", lambda: text)).text
    assert "returned no volume" in get(ran("smuggled_in_a_list", lambda: [text])).text


def test_a_task_without_volumes_has_a_page_that_says_so(get, ran):
    assert "returned no volume" in get(ran("no_volumes", lambda: 1)).text


def test_a_task_shows_no_version_but_its_own(get, ran):
    other = made("other", a="1")
    page = ran("only_its_own", lambda: written(Volume.new("raw"), {"a": "1"}))

    assert 404 == get(f"{page}/-1/{other.version}").status_code
    assert 404 == get(f"{page}/-1/{other.version}/file?path=a").status_code
    assert 404 == get(f"{page}/7/{other.version}").status_code


def test_an_unmapped_task_whose_index_nobody_filled_in_is_shown(get, ran):
    page = ran("unfilled", lambda: written(Volume.new("raw"), {"a": "1"}))

    assert "raw" in get(f"{page}?map_index={{MAP_INDEX}}").text


# -- what goes wrong


def test_a_store_that_fails_is_a_page_with_a_status_and_no_traceback(get, monkeypatch, tmp_path):
    monkeypatch.setenv("VOLUME_BUCKET", "nowhere://bucket")

    answer = get("/")

    assert answer.status_code in {500, 502}
    assert "nowhere://" in answer.text
    assert "Traceback" not in answer.text


def test_a_version_that_is_not_there_is_a_404_with_a_sentence(get):
    made("raw", a="1")

    answer = get(f"/volume/raw/{'0' * 64}")

    assert 404 == answer.status_code
    assert "there is no such version" in answer.text


@pytest.mark.parametrize("query", ["?after=x", "?after=99999999999999999999999", "?after=7"])
def test_a_position_that_is_none_is_a_400(get, query):
    version = made("raw", a="1")

    assert 400 == get(f"/volume/raw/{version.version}/files{query}").status_code


@pytest.mark.loud
def test_an_error_nobody_thought_of_is_a_page_and_a_line_in_the_log(get, monkeypatch, caplog):
    from volume_airflow.web import application

    def broken(_store):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(application, "listed_in", broken)

    answer = get("/")

    assert 500 == answer.status_code
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_pages_and_links_fit_below_the_path_of_base_url(get, server, monkeypatch):
    from airflow.sdk.configuration import conf

    from volume_airflow.web.places import outside

    version = made("raw", a="1")
    client, tokens = server
    monkeypatch.setattr(client.app, "root_path", "/airflow")
    page = client.get("/airflow/volumes/volume/raw", headers={"Authorization": f"Bearer {tokens['viewer']}"}).text
    monkeypatch.setattr(conf, "get", lambda *_, **__: "https://example.org/airflow/")

    assert f'"/airflow/volumes/volume/raw/{version.version}"' in page
    assert "/airflow/volumes/ti" == outside("/ti")


def test_the_plugin_loads_without_what_serves_pages():
    code = (
        "import sys, volume_airflow.plugins.volume as p;"
        "print(*{'volume_airflow.web.application', 'volume_airflow.web.found', 'kubernetes',"
        " 'airflow.api_fastapi.core_api.security'}.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "" == done.stdout.strip()


def test_a_store_that_does_not_answer_holds_up_its_pages_and_nothing_else_of_airflows(server, monkeypatch):
    """Airflow answers by threads, of which there are 40 for all that it answers."""
    from volume_airflow.web import application

    client, tokens = server
    begun, answers = [], threading.Event()

    def silent(*_):
        begun.append(1)
        answers.wait(60)
        return []

    monkeypatch.setattr(application, "listed_in", silent)

    async def asked():
        transport = httpx.ASGITransport(client.app)
        headers = {"Authorization": f"Bearer {tokens['viewer']}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow", headers=headers) as reader:
            pages = [asyncio.create_task(reader.get("/volumes/")) for _ in range(60)]
            end = time.monotonic() + 20
            while len(begun) < min(application.PAGES_AT_ONCE, 40) and time.monotonic() < end:  # all that get a thread
                await asyncio.sleep(0.01)
            try:
                other = await asyncio.wait_for(reader.get("/api/v2/version"), 15)
            finally:
                answers.set()
            return other, [await each for each in pages]

    other, pages = asyncio.run(asked())

    assert 200 == other.status_code
    assert {200} == {each.status_code for each in pages}
