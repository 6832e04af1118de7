"""What volumes know of the task of flyte 2 that runs: who it is, where its volumes lie, and its report."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import flyte
import flyte.report
import pytest
from flyte.models import RawDataPath
from pydantic import BaseModel
from v2_kit import Container, Local, committed, inputs_of, written
from v2_tasks import where, where_else

from volume_core import ROVolume, RWVolume, Volume
from volume_core.plugins.manager import plugins
from volume_flyte.v2 import reporting, running

HERE = Path(__file__).parent
env = flyte.TaskEnvironment("v2-running")
# Flyte leaves the file of its reports' template to the garbage collector.
reports = pytest.mark.filterwarnings("ignore:unclosed file.*_template.html:ResourceWarning")


class Model(BaseModel):
    """Volumes in the fields of a pydantic model."""

    data: ROVolume
    work: RWVolume


@pytest.fixture
def run(tmp_path, monkeypatch) -> Local:
    return Local(tmp_path, monkeypatch)


@pytest.fixture
def container(tmp_path) -> Container:
    paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    own = {"HOME": str(tmp_path / "home"), "VOLUME_DRIVER": "copy", "VOLUME_MOUNT_ROOT": str(tmp_path / "mounts")}
    return Container(tmp_path, "v2_tasks", {**os.environ, **own, "PYTHONPATH": paths})


# -- who


def test_outside_a_task_nobody_runs():
    assert running.current_task() is None
    assert running.default_bucket() is None


def test_a_version_says_which_action_of_which_run_made_it(run):
    @env.task
    async def main() -> tuple[ROVolume, str, str]:
        action = flyte.ctx().action
        return committed(), action.run_name, action.name

    version, run_name, action = run(main)

    made = version.produced_by
    assert ("flyte", run_name, action) == (made.engine, made.run, made.action)
    assert {""} == {made.org, made.project, made.domain, made.attempt, made.url}


def test_a_traced_call_is_an_action_of_its_own(run):
    @flyte.trace
    async def step() -> ROVolume:
        return committed()

    @env.task
    async def main() -> tuple[ROVolume, str]:
        return await step(), flyte.ctx().action.name

    version, action = run(main)

    assert version.produced_by.action not in {"", action}


def test_the_attempt_is_the_one_that_the_cluster_says(run, monkeypatch):
    @env.task
    async def main() -> ROVolume:
        return committed()

    monkeypatch.setenv("FLYTE_ATTEMPT_NUMBER", "2")

    assert "2" == run(main).produced_by.attempt


def test_a_synchronous_task_is_known_as_well(run):
    @env.task
    def main() -> ROVolume:
        return committed()

    assert "flyte" == run(main).produced_by.engine


# -- where


def test_in_a_local_run_volumes_lie_where_they_do_without_flyte(run):
    @env.task
    async def main() -> str:
        return Volume.new("data").store_url

    assert Volume.new("data").store_url == run(main)


@pytest.mark.parametrize(
    ("raw", "store"),
    [
        ("s3://bucket/metadata/a1b2/0", "s3://bucket/volumes/p/d"),
        ("gs://bucket/x", "gs://bucket/volumes/p/d"),
        (
            "abfs://container@account.dfs.core.windows.net/x",
            "abfs://container@account.dfs.core.windows.net/volumes/p/d",
        ),
    ],
)
def test_in_a_cluster_they_lie_in_the_bucket_of_its_data(container, raw, store):
    container.run("where", asyncio.run(inputs_of(where)), raw=raw)

    assert store == container.output().scalar.primitive.string_value


def test_in_a_cluster_threads_of_the_tasks_own_and_imports_have_that_store_too(container):
    container.environ |= {"FLYTE_INTERNAL_EXECUTION_PROJECT": "p", "FLYTE_INTERNAL_EXECUTION_DOMAIN": "d"}
    container.run("where_else", asyncio.run(inputs_of(where_else)), raw="s3://bucket/metadata/a1b2/0")

    found = [each.scalar.primitive.string_value for each in container.output().collection.literals]
    assert ["s3://bucket/volumes/p/d"] * 2 == found


@pytest.mark.parametrize(
    ("arguments", "in_a_container", "found"),
    [
        (["--raw-data-path", "s3://b/x"], True, "s3://b/volumes/p/d"),
        (["--raw-data-path=s3://b/x"], True, "s3://b/volumes/p/d"),
        (["-r", "s3://b/x", "--project", "q"], True, "s3://b/volumes/q/d"),
        (["--raw-data-path", "s3://b/x"], False, None),
        (["--raw-data-path"], True, None),
        (["mod", "--", "--raw-data-path", "s3://b/x"], True, None),
        (["--raw-data-path", "/local"], True, None),
    ],
)
def test_what_a_container_was_started_with_says_where(monkeypatch, arguments, in_a_container, found):
    monkeypatch.setattr(sys, "argv", ["a0", *arguments])
    if in_a_container:
        monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_PROJECT", "p")
        monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_DOMAIN", "d")

    assert found == running.default_bucket()


def test_a_bucket_that_was_set_goes_before_the_clusters(container, monkeypatch):
    container.environ["VOLUME_BUCKET"] = "s3://team/volumes"
    container.run("where", asyncio.run(inputs_of(where)), raw="s3://bucket/metadata")

    assert "s3://team/volumes" == container.output().scalar.primitive.string_value


def test_what_is_no_bucket_is_nobodys_default(run):
    """`raw_data_path` of a local run may be a URL, or a directory in any of its spellings."""

    @env.task
    async def main() -> list[str]:
        from flyte._context import internal_ctx

        context, found = internal_ctx(), []
        for path in ("/dir", "file:///dir", "memory://x", "s3://bucket/x", ""):
            changed = context.data.task_context.replace(raw_data_path=RawDataPath(path=path))
            with context.replace_task_context(changed):
                found.append(str(running.default_bucket()))
        return found

    assert ["None", "None", "None", "s3://bucket/volumes", "None"] == run(main)


# -- the report


@reports
def test_the_report_of_a_task_shows_what_it_mounted_and_committed(run):
    base = committed("base")

    @env.task(report=True)
    async def main(base: ROVolume) -> RWVolume:
        await base.mount()
        fork = await base.fork("forked")
        path = await fork.mount()
        (path / "b.txt").write_text("b")
        await fork.commit("in the <middle>")
        (path / "c.txt").write_text("c")
        return fork

    made = run(main, base=base)

    [report] = run.reports()
    last, middle, _ = Volume.from_locator_sync(made.locator).log_sync()
    assert "base, mounted read-only" in report
    assert "forked, mounted writable" in report
    assert report.index(middle.volume.version) < report.rindex(last.volume.version)
    assert 2 == report.count('<div class="volume-page">')
    assert "in the &lt;middle&gt;" in report
    assert "in the <middle>" not in report
    base.close_sync()


def test_a_task_without_report_makes_no_page(run, monkeypatch):
    monkeypatch.setattr(reporting, "page_of", lambda version: pytest.fail("nobody asked"))

    @env.task
    async def main() -> RWVolume:
        return written()

    run(main)

    assert [] == run.reports()


@reports
def test_a_task_that_only_reports_its_own_things_has_no_such_tab(run):
    @env.task(report=True)
    async def main() -> int:
        await flyte.report.log.aio("<p>mine</p>")
        return 1

    run(main)

    [report] = run.reports()
    assert ">Volumes</li>" not in report


@reports
def test_a_tab_of_the_same_name_that_the_task_made_is_kept(run):
    @env.task(report=True)
    async def main() -> RWVolume:
        tab = flyte.report.get_tab("Volumes")
        tab.log("<p>before</p>")
        volume = written()
        tab.log("<p>after</p>")
        return volume

    made = run(main)

    [report] = run.reports()
    assert "<p>before</p>" in report
    assert "<p>after</p>" in report
    assert made.locator in report


@reports
def test_only_the_newest_versions_have_pages_and_the_others_a_line(run, monkeypatch):
    monkeypatch.setattr(reporting, "page_of", lambda version: f"<p>page of {version.message}</p>")

    @env.task(report=True)
    async def main() -> ROVolume:
        volume = Volume.new("data")
        path = await volume.mount()
        for number in range(reporting.PAGES + 2):
            (path / "n.txt").write_text(str(number))
            await volume.commit(f"number {number}")
        return await volume.finalize()

    run(main)

    [report] = run.reports()
    assert reporting.PAGES == report.count("page of number")
    assert "page of number 1<" not in report
    assert "(number 1)" in report


@reports
def test_a_checkpoint_of_a_background_thread_is_in_the_report(run):
    @env.task(report=True)
    async def main() -> ROVolume:
        volume = Volume.new("data")
        async with volume.mounted(message="background", checkpoint_every=0.05) as path:
            (path / "a.txt").write_text("a")
            while volume.index is None:
                await asyncio.sleep(0.01)
            (path / "b.txt").write_text("b")
        return volume.committed

    version = run(main)

    [report] = run.reports()
    for entry in version.log_sync():
        assert entry.volume.version in report


@reports
def test_a_writer_in_a_pydantic_field_is_in_the_report(run):
    """It is committed in the loop's own thread, which may not wait for the report to be written."""

    @env.task(report=True)
    async def modelled() -> Model:
        await flyte.report.log.aio("first", do_flush=True)
        return Model(data=written("one"), work=committed("two"))

    @env.task
    async def main() -> Model:
        return await modelled()

    model = run(main)

    [report] = run.reports()
    assert model.data.locator in report


@reports
@pytest.mark.loud
def test_a_page_that_cannot_be_made_fails_no_task(run, monkeypatch):
    import volume_core.pages

    monkeypatch.setattr(volume_core.pages, "version_page", lambda version: 1 / 0)

    @env.task(report=True)
    async def main() -> RWVolume:
        return written()

    made = run(main)

    [report] = run.reports()
    assert made.locator in report


# -- manners


def test_the_hooks_are_found_by_their_entry_point():
    assert "flyte" in plugins().names()


def test_nothing_of_flyte_is_imported_by_volumes_that_flyte_did_not_import():
    code = "import sys, volume_core; volume_core.Volume.new('x'); import volume_flyte\n"
    code += "assert not {'flyte', 'flytekit', 'kubernetes'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_directory_of_a_programs_own_that_is_called_flyte_is_not_asked(tmp_path):
    (tmp_path / "flyte").mkdir()
    (tmp_path / "flyte" / "__init__.py").write_text("")
    code = "import flyte, volume_core; assert not hasattr(flyte, 'ctx'); volume_core.Volume.new('x')"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])

    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True, timeout=60)


def test_a_process_of_flyte_2_has_its_own_key_by_contents():
    code = "import sys, flyte, volume_flyte; volume_flyte.VolumeHash\nassert 'flytekit' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
