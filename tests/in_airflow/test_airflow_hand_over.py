"""One log, three engines: what a Prefect flow commits, a DAG works on, and a flytekit workflow takes.

The engines do not fit into one environment, so the other two have interpreters of their own.  `tox -e airflow` names
those of its other environments (VOLUME_TEST_PREFECT_PYTHON, VOLUME_TEST_FLYTE_PYTHON); where there is none, one is made
and this checkout installed in it with the extra, which takes minutes, once a session.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from airflow_kit import texts

from volume_core import ROVolume
from volume_core.testing.s3server import S3Server

pytest.importorskip("airflow.sdk", reason="the example is for Airflow 3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("other_engines")]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# The package of each engine, and the extra that installs it beside the packages that it needs at other releases.
ENGINES = {"prefect": ("prefect", ["prefect>=3.7,<3.9", "fastapi<0.151"]), "flyte": ("flytekit", [])}


# Of a server of its own for the length of the flow, on a machine with other work.
PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "DO_NOT_TRACK": "1",
}


def environment(**more: str) -> dict[str, str]:
    """What the three share: the store, and nothing of Airflow."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "PREFECT_", "FLYTE_"))}
    # Whatever they have installed, they run what is here.
    return own | PREFECT | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'adapters'}"} | more


def has(interpreter: str, package: str) -> bool:
    """Whether *interpreter* is there, and has *package* and the adapter."""
    if not Path(interpreter).is_file():
        return False
    asked = f"import {package}, volume_core"
    return (
        subprocess.run([interpreter, "-c", asked], env=environment(), capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory):
    """`interpreter(engine)` is a Python in which that engine and this checkout are installed."""

    def found(engine: str) -> str:
        package, more = ENGINES[engine]
        named = os.environ.get(f"VOLUME_TEST_{engine.upper()}_PYTHON", "")
        if has(named, package):
            return named
        place = tmp_path_factory.getbasetemp() / f"environment-of-{engine}"
        python = str(place / "bin" / "python")
        if not Path(python).exists():
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            source = _copied_source(tmp_path_factory.getbasetemp() / "checkout")
            install = [python, "-m", "pip", "install", "--quiet", f"{source}[{engine}]", *more]
            done = subprocess.run(install, env=environment(), capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        return python

    return found


def _copied_source(to: Path) -> Path:
    """A copy of what the package is built from: what a build leaves beside it is not left in the checkout."""
    if not to.exists():
        for name in ("volume_core", "adapters"):
            shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, to)
    return to


def last_line(python: str, program: Path, *arguments: str, home: Path) -> str:
    """What *program* says last, run by *python*."""
    command, env = [python, str(program), *arguments], environment(PREFECT_HOME=str(home), HOME=str(home))
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def dag():
    """The example's DAG."""
    spec = importlib.util.spec_from_file_location("example_hand_over", EXAMPLES / "airflow" / "hand_over.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.hand_over()


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The store that the three have in common, in the environment of each."""
    if request.param == "directory":
        monkeypatch.setenv("VOLUME_BUCKET", f"file://{tmp_path}/store")
        yield
        return
    with S3Server(access_key="SHARED") as server:
        server.make_bucket("shared")
        monkeypatch.setenv("VOLUME_BUCKET", "s3://shared/volumes")
        monkeypatch.setenv("VOLUME_S3_ENDPOINT", server.endpoint)
        monkeypatch.setenv("VOLUME_S3_ACCESS_KEY_ID", "SHARED")
        monkeypatch.setenv("VOLUME_S3_SECRET_ACCESS_KEY", "secret")
        yield


@pytest.mark.usefixtures("store")
def test_a_volume_goes_through_three_engines_and_its_log_names_all_of_them(run_dag, interpreter, tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    programs = EXAMPLES / "handover"

    scraped = last_line(interpreter("prefect"), programs / "scrape_with_prefect.py", home=tmp_path)
    run, xcoms = run_dag(dag(), run_conf={"pages": scraped})
    assert run.state == "success"
    counted = xcoms["locator", -1, "return_value"]
    reported = last_line(interpreter("flyte"), programs / "report_with_flyte.py", counted, home=tmp_path)

    report = ROVolume.from_locator_sync(reported)
    assert texts(report) == {
        "one.txt": "to be or not to be", "one.count": "6",
        "two.txt": "all the world is a stage", "two.count": "6",
        "report.md": "12 words\n",
    }  # fmt: skip
    log = report.log_sync()
    assert [entry.volume.locator for entry in log] == [reported, counted, scraped]
    assert [entry.parents for entry in log] == [(counted,), (scraped,), ()]
    assert [entry.volume.produced_by.engine for entry in log] == ["flyte", "airflow", "prefect"]
    assert [entry.volume.produced_by.action for entry in log][1] == "count_words"
    assert report.verify_sync() == []
