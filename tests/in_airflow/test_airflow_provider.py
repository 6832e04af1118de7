"""What Airflow is told of the package is true, and is what Airflow reads."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from volume_airflow import compat
from volume_airflow.compat import IS_3, conf
from volume_airflow.provider_info import conn_fields, get_provider_info

# To ask for decorators is to import those of every provider that is installed.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _modules(info):
    for key in ("hooks", "operators", "sensors", "triggers"):
        for each in info[key]:
            yield from each["python-modules"]
    yield from info["filesystems"]


def _names(info):
    yield from (each["hook-class-name"] for each in info["connection-types"])
    yield from (each["class-name"] for each in info["task-decorators"])
    yield from info.get("extra-links", ())
    for each in info["asset-uris"]:
        yield from (each[key] for key in ("handler", "factory", "to_openlineage_converter"))


def _providers():
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as Manager
    except ImportError:
        from airflow.providers_manager import ProvidersManager as Manager
    return Manager()


def _schema():
    import airflow

    return json.loads((Path(airflow.__file__).parent / "provider_info.schema.json").read_text())


@pytest.mark.skipif(not compat.IS_3, reason="its schema lacks keys of Airflow 3")
def test_the_info_keeps_airflows_own_schema():
    jsonschema = pytest.importorskip("jsonschema")
    info = get_provider_info()
    jsonschema.validate(info, _schema())
    if IS_3:
        assert set(info) <= set(_schema()["properties"])


def test_every_name_in_it_leads_to_something():
    info = get_provider_info()
    for module in _modules(info):
        importlib.import_module(module)
    for name in _names(info):
        module, _, attribute = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), attribute)), name


def test_to_be_told_imports_no_airflow_no_pydantic_and_no_volumes():
    code = (
        "import sys; from volume_airflow.provider_info import get_provider_info; get_provider_info()\n"
        "print([each for each in ('airflow', 'pydantic', 'volume_core.volumes') if each in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_class_name_and_not_path_is_what_airflow_reads_of_task_decorators():
    (decorator,) = get_provider_info()["task-decorators"]
    assert "class-name" in decorator
    registered = dict(_providers().taskflow_decorators)
    assert "volume_task" == registered["volume"].__name__


def test_the_connection_type_is_found_with_its_hook():
    hook = _providers().hooks["volume"]
    assert ("volume_conn_id", "Volume store") == (hook.connection_id_attribute_name, hook.hook_name)


@pytest.mark.skipif(not IS_3, reason="Airflow 2 asks the hook for its form")
def test_the_form_of_a_connection_is_what_the_api_gives_the_browser():
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (meta,) = [each for each in HookMetaService.hook_meta_data() if each.connection_type == "volume"]
    assert set(conn_fields()) == set(meta.extra_fields)
    assert "password" == meta.extra_fields["session_token"]["schema"]["format"]
    assert "Store URL" == meta.standard_fields.host.title
    assert meta.standard_fields.port.hidden
    assert meta.standard_fields.url_schema.hidden


def test_the_hook_itself_gives_the_form_of_airflow_2():
    from volume_airflow.hooks.volume import VolumeHook

    told = VolumeHook.get_ui_field_behaviour()
    assert ["schema", "port"] == told["hidden_fields"]
    assert "Store URL" == told["relabeling"]["host"]
    if not IS_3:
        assert set(conn_fields()) == set(VolumeHook.get_connection_form_widgets())


@pytest.mark.skipif(not compat.IS_3, reason="only its command line reads the settings of providers")
def test_settings_have_the_providers_defaults_and_the_environments_values(monkeypatch):
    if IS_3:  # before, whoever reads a setting says what holds without it
        assert "volume_default" == conf.get("volume", "conn_id")
        assert conf.getboolean("volume", "assets")
    monkeypatch.setenv("AIRFLOW__VOLUME__STORE", "s3://team/volumes")
    assert "s3://team/volumes" == conf.get("volume", "store")


def test_every_setting_that_the_code_reads_is_described():
    described = set(get_provider_info()["config"]["volume"]["options"])
    assert {"conn_id", "store", "connections", "on_failure", "retry", "on_terminate", "assets"} <= described
