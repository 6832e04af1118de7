"""The pages as people see them: Airflow's own API server and UI, in a real browser.

Always true: the server's database is a copy of this worker's, in which `dag.test()` has run a DAG; a message in the
browser's console is a failure, for that is where a broken policy, link or sandbox says so.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from airflow_kit import dag_runs
from airflow_server import _end, environment_of, free_port

from volume_airflow.compat import DAG, task
from volume_core import RWVolume, Volume

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY_S = 180
pytestmark = [pytest.mark.browser, pytest.mark.slow]


def edited(version, files, message, name="customers"):
    writer = version.fork_sync(name) if version is not None else Volume.new(name)
    with writer.mounted_sync(driver="copy", message=message) as root:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
    return writer.committed


def dag_with_volumes():
    """A run that has made a history worth looking at, and whose last task has returned its newest version."""
    with DAG("customers_daily", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:

        @task
        def ingest():
            first = edited(None, {"raw/eu.csv": "id,name\n" * 4000, "README.md": "# Customers\n"}, "first load")
            first.tag_sync("launch")
            second = edited(first, {"raw/us.csv": "id,name\n" * 9000}, "the American customers")
            fixed = edited(first, {"raw/eu.csv": "id,name\n" * 5000, "notes/<b>odd</b> & co.txt": "?"}, "EU: fixed ids")
            merged = Volume.merge_sync([second, fixed], message="both sides of the ocean")
            return edited(merged, {"clean/all.parquet": "x" * 90_000}, "one table of all")

        @task
        def publish(data: RWVolume):
            root = data.mount_sync(driver="copy")
            (root / "clean" / "all.parquet").write_text("y" * 120_000)
            (root / "raw" / "us.csv").unlink()
            return {"customers": data, "rows": 14_000}

        publish(ingest())
    return dag


@pytest.fixture(scope="module")
def api_server(database, tmp_path_factory):
    """The address of an API server, with the run of customers_daily in its database, and that run's id."""
    home, port = tmp_path_factory.mktemp("server"), free_port()
    (home / "dags").mkdir()
    with pytest.MonkeyPatch.context() as here:
        here.setenv("AIRFLOW__API__BASE_URL", f"http://127.0.0.1:{port}")
        here.setenv("VOLUME_BUCKET", f"file://{home}/store")
        here.setenv("VOLUME_STATE_DIR", str(home / "state"))
        here.setenv("VOLUME_MOUNT_ROOT", str(home / "mounts"))
        run, _ = dag_runs(dag_with_volumes())
    assert run.state == "success"
    with contextlib.closing(sqlite3.connect(database)) as here, contextlib.closing(
        sqlite3.connect(home / "airflow.db")
    ) as there:  # fmt: skip
        here.backup(there)
    environment = environment_of(home, port)
    with (home / "api-server.log").open("wb") as log:
        command = [sys.executable, "-m", "airflow", "api-server"]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_for(server, f"http://127.0.0.1:{port}", home / "api-server.log")
        yield f"http://127.0.0.1:{port}", run.run_id
    finally:
        _end([server])


def _wait_for(server, url, log):
    import httpx

    end = time.monotonic() + READY_S
    while True:
        assert server.poll() is None and time.monotonic() < end, log.read_text()[-5000:]
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/api/v2/monitor/health", timeout=10).status_code == 200:
                return
        time.sleep(0.2)


@pytest.fixture
def browser(tmp_path):
    """A page of a headless Chromium with a profile of its own, and what its console has said."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.skip(f"no browser: looked for {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as running:
        context = running.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=executable, headless=True, args=FLAGS,
            viewport={"width": 1360, "height": 900}, accept_downloads=True,
        )  # fmt: skip
        page, said = context.pages[0], []
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        yield page, said
        context.close()


def pictures_in(directory: Path):
    """`take(page, name)`: a screenshot, kept with the test's files."""
    kept = Path(os.environ.get("VOLUME_TEST_PICTURES") or directory)

    def take(page, name):
        page.wait_for_timeout(300)  # fonts and Airflow's own transitions; nothing is decided by it
        page.screenshot(path=str(kept / f"{name}.png"))
        assert (kept / f"{name}.png").stat().st_size > 10_000

    return take


def test_from_the_menu_to_a_volume_its_graph_a_version_its_files_and_what_changed(api_server, browser, tmp_path):
    (url, _), (page, said), take = api_server, browser, pictures_in(tmp_path)

    page.goto(url)
    page.get_by_role("button", name="Browse").or_(page.get_by_text("Browse", exact=True)).first.click()
    page.get_by_role("menuitem", name="Volumes").click()
    volumes = page.frame_locator("iframe")
    volumes.get_by_role("link", name="customers").wait_for()
    take(page, "1-volumes")

    volumes.get_by_role("link", name="customers").click()
    volumes.get_by_role("cell", name="both sides of the ocean").wait_for()
    assert 6 == volumes.locator("svg.vp-graph").count()
    assert volumes.locator(".vp-tag", has_text="launch").is_visible()
    take(page, "2-volume")

    volumes.locator("tr", has_text="one table of all").get_by_role("link").click()
    volumes.get_by_text("What changed against its").wait_for()
    take(page, "3-version")

    volumes.get_by_role("link", name="Files").click()
    volumes.get_by_role("link", name="raw/").click()
    volumes.get_by_role("link", name="us.csv").wait_for()
    take(page, "4-files")
    with page.expect_download() as download:
        volumes.get_by_role("link", name="us.csv").click()
    assert "us.csv" == download.value.suggested_filename
    assert "id,name\n" * 9000 == Path(download.value.path()).read_text()

    volumes.get_by_role("link", name="Changes").click()
    volumes.get_by_role("textbox").fill("launch")
    volumes.get_by_role("button", name="Compare").click()
    volumes.get_by_text("/notes/<b>odd</b> & co.txt").wait_for()
    take(page, "5-changes")
    assert [] == problems(said)


def test_a_task_has_a_tab_with_what_it_returned_and_committed(api_server, browser, tmp_path):
    (url, run_id), (page, said), take = api_server, browser, pictures_in(tmp_path)

    page.goto(f"{url}/dags/customers_daily/runs/{quote(run_id)}/tasks/publish")
    page.get_by_role("link", name="Volumes").last.click()
    tab = page.frame_locator("iframe")
    tab.get_by_text("Volumes of this task instance").wait_for()
    assert tab.locator(".vp-mark", has_text="committed").first.is_visible()
    take(page, "6-task")

    tab.get_by_role("link", name="customers").first.click()
    tab.get_by_text("What changed against its").wait_for()
    assert tab.get_by_text("/raw/us.csv").is_visible()
    take(page, "7-task-version")
    with page.context.expect_page() as opened:  # which the frame that the tab is may not do by itself
        tab.get_by_role("link", name="airflow / customers_daily").first.click()
    assert opened.value.url.startswith(f"{url}/dags/customers_daily/runs/")
    assert [] == problems(said)


def test_pages_follow_the_switch_between_light_and_dark_and_fit_a_narrow_window(api_server, browser, tmp_path):
    (url, _), (page, said), take = api_server, browser, pictures_in(tmp_path)
    page.goto(f"{url}/auth/token/login")
    for theme in ("light", "dark"):
        page.goto(f"{url}/plugin/volumes")
        page.evaluate(f"localStorage.setItem('theme', '{theme}')")
        page.reload()
        volumes = page.frame_locator("iframe")
        volumes.get_by_role("link", name="customers").click()
        volumes.get_by_role("cell", name="both sides of the ocean").wait_for()
        seen = volumes.locator("html").evaluate("each => getComputedStyle(each).colorScheme")
        assert theme == seen
    take(page, "8-dark")

    page.set_viewport_size({"width": 480, "height": 800})
    wide = volumes.locator("html").evaluate("each => each.scrollWidth - each.clientWidth")
    assert wide <= 0
    assert [] == problems(said)


# Airflow's own frame, of every plugin.
OF_AIRFLOW = "An iframe which has both allow-scripts and allow-same-origin for its sandbox attribute can escape"


def problems(said):
    """What the browser has complained about."""
    return [each for each in said if each.startswith(("error", "warning")) and OF_AIRFLOW not in each]
