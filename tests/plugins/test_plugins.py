"""Registering, asking and telling: what a broken plugin may and may not do."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from volume_core.errors import StorageError, VolumeError
from volume_core.format.manifest import Action
from volume_core.plugins import manager
from volume_core.plugins.hookspecs import hookimpl
from volume_core.plugins.manager import Plugins


def plugin(**functions):
    """An object whose attributes are *functions*, each marked as a hook."""
    return SimpleNamespace(**{name: hookimpl(function) for name, function in functions.items()})


def test_the_last_registered_answers_first_and_none_passes_the_question_on():
    plugins = Plugins()
    plugins.register(plugin(volume_current_task=lambda: Action(engine="old")), "old")
    plugins.register(plugin(volume_current_task=lambda: None), "new")

    assert Action(engine="old") == plugins.current_task()


def test_nobody_answering_is_none():
    assert Plugins().current_task() is None


def test_the_built_in_answer_comes_last(monkeypatch, tmp_path):
    monkeypatch.delenv("VOLUME_BUCKET", raising=False)
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path))
    plugins = Plugins()

    assert f"file://{tmp_path}/store" == plugins.default_bucket()
    monkeypatch.setenv("VOLUME_BUCKET", "s3://configured")
    assert "s3://configured" == plugins.default_bucket()
    plugins.register(plugin(volume_default_bucket=lambda: "s3://task"), "engine")
    assert "s3://task" == plugins.default_bucket()


def test_a_question_that_fails_names_hook_and_adapter():
    plugins = Plugins()
    plugins.register(plugin(volume_current_task=lambda: 1 / 0), "shaky")

    with pytest.raises(VolumeError, match="adapter shaky failed in volume_current_task: ZeroDivisionError") as caught:
        plugins.current_task()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_adapters_own_volume_error_keeps_its_class_and_says_whose_it_is():
    def volume_open_store(url):
        raise StorageError(f"{url}: come back later", transient=True)

    plugins = Plugins()
    plugins.register(plugin(volume_open_store=volume_open_store), "ftp")

    with pytest.raises(StorageError, match="come back later") as caught:
        plugins.open_store("ftp://host", {})
    assert caught.value.transient
    assert ["raised by adapter ftp in volume_open_store"] == caught.value.__notes__


def test_a_scheme_nobody_knows_is_said_so():
    with pytest.raises(StorageError, match="ftp://host: nothing installed opens such a store"):
        Plugins().open_store("ftp://host", {})


def test_a_new_scheme_is_one_function():
    opened = object()
    plugins = Plugins()
    plugins.register(plugin(volume_open_store=lambda url, options: opened if url.startswith("ftp:") else None), "ftp")

    assert opened is plugins.open_store("ftp://host", {"region": "x"})
    memory = plugins.open_store("memory://plugins", {})
    assert "memory://plugins" == memory.url


@pytest.mark.loud
def test_news_reach_everyone_and_a_failure_names_its_adapter(caplog):
    heard = []
    plugins = Plugins()
    plugins.register(plugin(volume_committed=lambda version: heard.extend([version])), "first")
    plugins.register(plugin(volume_committed=lambda version, action: 1 / 0), "shaky")

    plugins.committed("v1", None)

    assert ["v1"] == heard
    assert ["adapter shaky failed in volume_committed"] == [record.getMessage() for record in caplog.records]
    assert "ZeroDivisionError" in caplog.text


def test_news_of_a_mount_pass_only_what_is_asked_for(tmp_path):
    heard = []
    plugins = Plugins()
    plugins.register(plugin(volume_mounted=lambda driver, name: heard.append((name, driver))), "listener")

    plugins.mounted(name="data", locator=None, path=tmp_path, driver="copy", writable=True, action=None)

    assert [("data", "copy")] == heard


def test_every_plugin_shapes_the_pod_and_one_that_fails_stops_it():
    plugins = Plugins()
    plugins.register(plugin(volume_pod=lambda spec: spec.setdefault("seen", []).append("a")), "a")
    plugins.register(plugin(volume_pod=lambda spec: spec.setdefault("seen", []).append("b")), "b")
    spec = {}
    plugins.pod(spec)

    assert {"seen": ["b", "a"]} == spec
    plugins.register(plugin(volume_pod=lambda spec: spec["containers"]), "picky")
    with pytest.raises(VolumeError, match="adapter picky failed in volume_pod"):
        plugins.pod({})


def test_drivers_are_collected_by_name_and_two_of_one_name_are_refused():
    nfs, smb, other_nfs = (SimpleNamespace(name=name) for name in ("nfs", "smb", "nfs"))
    plugins = Plugins()
    for index, driver in enumerate((nfs, None, smb)):
        plugins.register(plugin(volume_mount_driver=lambda driver=driver: driver), f"p{index}")

    assert {"nfs": nfs, "smb": smb} == plugins.mount_drivers()
    plugins.register(plugin(volume_mount_driver=lambda: other_nfs), "p9")
    with pytest.raises(VolumeError, match="'nfs'"):
        plugins.mount_drivers()


@pytest.mark.parametrize(
    ("functions", "complaint"),
    [
        ({"volume_comitted": lambda version: None}, "volume_comitted"),
        ({"volume_committed": lambda wrong: None}, "wrong"),
        ({}, "implements no hook"),
    ],
)
def test_a_plugin_that_does_not_fit_is_refused_whole(functions, complaint):
    plugins = Plugins()
    before = plugins.names()

    with pytest.raises(VolumeError, match=f"plugin bent cannot be registered.*{complaint}"):
        plugins.register(
            plugin(volume_current_task=lambda: Action(engine="bent"), **functions) if functions else plugin(), "bent"
        )
    assert before == plugins.names()
    assert plugins.current_task() is None


def test_wrappers_are_refused():
    @hookimpl(wrapper=True)
    def volume_current_task():
        return (yield)

    with pytest.raises(VolumeError, match="volume_current_task cannot be wrapped"):
        Plugins().register(SimpleNamespace(volume_current_task=volume_current_task), "wrapper")


def test_a_plugin_comes_once():
    plugins = Plugins()
    one = plugin(volume_current_task=lambda: None)
    plugins.register(one, "one")

    with pytest.raises(VolumeError, match="plugin one cannot be registered"):
        plugins.register(one, "one")


def test_register_returns_what_takes_it_out_again():
    undo = manager.register(plugin(volume_current_task=lambda: Action(engine="here")), "here")
    try:
        assert Action(engine="here") == manager.plugins().current_task()
    finally:
        undo()

    assert "here" not in manager.plugins().names()


def install(site: Path, name: str, entry_points: str, code: str) -> None:
    """Put a package with entry points where Python finds it: what pip would leave behind."""
    (site / f"{name}.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[volume_core]\n{entry_points}\n")


GOOD = """
from volume_core.plugins.hookspecs import hookimpl
@hookimpl
def volume_default_bucket():
    return "s3://from-{name}"
"""
MISSPELT = """
from volume_core.plugins.hookspecs import hookimpl
@hookimpl
def volume_defualt_bucket():
    return "s3://never"
"""


def test_a_broken_entry_point_is_named_in_a_warning_and_the_others_load(tmp_path):
    install(tmp_path, "good_one", "good = good_one", GOOD.format(name="good"))
    install(tmp_path, "broken_one", "broken = broken_one", "import no_such_engine")
    install(tmp_path, "gone_one", "gone = gone_one:missing", "")
    install(tmp_path, "misspelt_one", "misspelt = misspelt_one", MISSPELT)
    script = (
        "import logging; logging.basicConfig(level=logging.WARNING, format='%(message)s')\n"
        "from volume_core.plugins.manager import plugins\n"
        "print(plugins().default_bucket())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(tmp_path)}
    )
    lines = sorted(run.stderr.splitlines())

    assert "s3://from-good\n" == run.stdout
    assert 3 == len(lines)
    assert lines[0].startswith("plugin broken of broken_one is left out: broken_one (ModuleNotFoundError")
    assert lines[1].startswith("plugin gone of gone_one is left out: gone_one:missing (AttributeError")
    assert lines[2].startswith("plugin misspelt of misspelt_one is left out: misspelt_one (VolumeError")
    assert "volume_defualt_bucket" in lines[2]


def test_an_entry_point_may_call_a_hook_while_it_is_loaded(tmp_path):
    asking = "from volume_core.plugins.manager import plugins\nprint(plugins().default_bucket())\n"
    install(tmp_path, "eager_one", "eager = eager_one", asking + GOOD.format(name="eager"))
    run = subprocess.run(
        [sys.executable, "-c", asking],
        capture_output=True, text=True, check=True, timeout=60,
        env={"PYTHONPATH": str(tmp_path), "VOLUME_BUCKET": "s3://before"},
    )  # fmt: skip

    assert "s3://before\ns3://from-eager\n" == run.stdout


def test_the_manager_logs_under_its_own_name():
    assert "volume_core.plugins.manager" == manager.log.name
    assert isinstance(manager.log, logging.Logger)
