"""Parameters of flows: the schema that the form and the server have lets through what a parameter takes."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import jsonschema
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.deployments import run_deployment
from prefect.exceptions import PrefectHTTPStatusError
from prefect_kit import made, texts

from volume_core import ROVolume, RWVolume, Volume
from volume_prefect import volumes


@volumes
@flow
def train(data: ROVolume, out: RWVolume | None = None) -> str:
    return data.locator


FORMS = {
    "record": lambda version: version.model_dump(mode="json"),
    "locator": lambda version: version.locator,
    "mapping": lambda version: {"locator": version.locator},
    "url": lambda version: f"vol://{version.name}",
    "name": lambda version: version.name,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_schema_of_a_flow_lets_through_what_a_parameter_takes(form):
    version = made(a="1")
    schema = train.parameters.model_dump_for_openapi()

    jsonschema.validate({"data": FORMS[form](version)}, schema)
    jsonschema.validate({"data": FORMS[form](version), "out": FORMS[form](version)}, schema)

    taken = train.validate_parameters({"data": FORMS[form](version), "out": FORMS[form](version)})
    assert (ROVolume, version.locator) == (type(taken["data"]), taken["data"].locator)
    assert (RWVolume, version.locator) == (type(taken["out"]), taken["out"].index)


@pytest.mark.parametrize("wrong", [3, "", {"nothing": 1}, None])
def test_the_schema_refuses_what_no_parameter_takes(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"data": wrong}, train.parameters.model_dump_for_openapi())


def test_the_form_says_what_can_be_given():
    schema = train.parameters.model_dump_for_openapi()

    text = schema["definitions"]["ROVolume"]["anyOf"][0]
    assert "vol://" in text["description"]
    assert "my-dataset" in text["examples"]


def test_a_version_is_validated_by_a_flow_without_being_changed():
    version = made(a="1")

    assert train.validate_parameters({"data": version})["data"] is version


SCRIPT = """
from prefect import flow
from volume_core import ROVolume, RWVolume
from volume_prefect import volumes

@volumes
@flow
def deployed(data: ROVolume, out: RWVolume):
    root = out.mount_sync(driver="copy")
    (root / "from.txt").write_text(data.version)
    return out
"""


@pytest.fixture
def deployment(server: str, tmp_path, monkeypatch):
    """A deployment of the flow above: its id."""
    (tmp_path / "deployed_flow.py").write_text(SCRIPT)
    monkeypatch.syspath_prepend(tmp_path)
    import deployed_flow

    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(deployed_flow.deployed)
        yield client.create_deployment(
            flow_id,
            f"deployment-{time.monotonic_ns()}",
            path=str(tmp_path),
            entrypoint="deployed_flow.py:deployed",
            parameter_openapi_schema=deployed_flow.deployed.parameters.model_dump_for_openapi(),
            enforce_parameter_schema=True,
        )
    del sys.modules["deployed_flow"]


@pytest.mark.parametrize("form", ["version", "record", "locator", "url", "name", "mapping"])
def test_the_server_accepts_for_a_deployment_what_a_parameter_takes(deployment, form):
    version = made(a="1")
    given = version if form == "version" else FORMS[form](version)

    run = run_deployment(deployment, parameters={"data": given, "out": given}, timeout=0, _sync=True)

    stored = run.parameters["data"]
    assert stored == (version.model_dump(mode="json") if form == "version" else given)


def test_the_server_refuses_what_no_parameter_takes(deployment):
    with pytest.raises(PrefectHTTPStatusError, match="409"):
        run_deployment(deployment, parameters={"data": 3, "out": "x"}, timeout=0, _sync=True)


def test_a_deployments_run_gets_volumes_of_what_was_typed_into_its_form(deployment):
    version = made(a="1")
    run: Any = run_deployment(
        deployment, parameters={"data": f"vol://{version.name}", "out": version.locator}, timeout=0, _sync=True
    )

    ran = subprocess.run(
        [sys.executable, "-m", "prefect", "flow-run", "execute", str(run.id)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    newest = Volume.from_name_sync(version.name).committed
    assert newest is not None
    assert {"a": "1", "from.txt": version.version} == texts(newest)
    assert str(run.id) == newest.produced_by.run
