"""The pipeline of examples/flyte runs as it stands, on its real data, and does what its words say."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from volume_core import ROVolume, Volume

EXAMPLE = Path(__file__).parents[2] / "examples" / "flyte" / "train_forks.py"
PYFLYTE = Path(sys.executable).with_name("pyflyte")
EXPERIMENTS = {"linear", "neighbours", "svm", "forest"}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a command in a home and with temporary files of the test's own; return what it printed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("VOLUME_DRIVER", "copy")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # matrices of 64 columns: threads would only wait for each other

    def run(*command: object) -> str:
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


def versions(volume: str) -> set[str]:
    """The versions of a volume."""
    root = Path(Volume.new("any").store_url.removeprefix("file://"))
    return {path.stem for path in (root / "versions" / volume).iterdir()}


def metrics(version: ROVolume) -> dict[str, dict]:
    """What each experiment has measured."""
    found = version.listdir_sync("results/*/metrics.json")
    return {Path(each.path).parent.name: json.loads(b"".join(version.read_file_sync(each.path))) for each in found}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_forks_are_trained_merged_and_reported_and_not_trained_again(run, tmp_path):
    told = run(sys.executable, EXAMPLE)
    merged = Volume.from_locator_sync(re.search(r"\S+\.json", told)[0])

    found = metrics(merged)
    assert EXPERIMENTS == found.keys()
    assert all(each["accuracy"] > 0.9 for each in found.values())
    best = max(found.values(), key=lambda each: each["accuracy"])
    assert f"{best['accuracy']:.2%}" in told
    assert 1797 == len(merged.listdir_sync("*/*/*.npy"))
    assert [] == merged.verify_sync()
    check_lineage(merged)
    check_model(merged, found)
    check_deck(merged, found, tmp_path)

    trained = {name: versions(f"digits-{name}") for name in EXPERIMENTS}
    before = versions("digits")
    run(PYFLYTE, "run", EXAMPLE, "train_forks", "--seed", "0")
    assert trained == {name: versions(f"digits-{name}") for name in EXPERIMENTS}, "the contents are those of before"
    new = [Volume.from_name_sync("digits", version=each) for each in versions("digits") - before]
    assert 2 == len(new), "one ingested, one merged"
    assert merged.content_digest_sync() in {each.content_digest_sync() for each in new}


def check_lineage(merged: ROVolume) -> None:
    """Each fork has the data as its parent, and nothing of it a second time."""
    entry = merged.log_sync(limit=1)[0]
    forks = [Volume.from_locator_sync(each) for each in entry.parents]
    assert {f"digits-{name}" for name in EXPERIMENTS} == {each.name for each in forks}
    [data] = {parent for each in forks for parent in each.log_sync(limit=1)[0].parents}
    assert "digits" == Volume.from_locator_sync(data).name
    for fork in forks:
        changed = Volume.from_locator_sync(data).diff_sync(fork)
        assert all(each.path.startswith("results") or each.kind == "metadata" for each in changed)
    assert "flyte" == merged.produced_by.engine


def check_model(merged: ROVolume, found: dict[str, dict]) -> None:
    """A model of the merged version reads the images of the merged version as well as it said."""
    import joblib
    import numpy as np

    model = joblib.load(io.BytesIO(b"".join(merged.read_file_sync("results/svm/model.joblib"))))
    files = merged.listdir_sync("test/*/*.npy")
    images = [np.load(io.BytesIO(b"".join(merged.read_file_sync(each.path)))).reshape(-1) for each in files]
    right = model.predict(np.stack(images)) == [int(Path(each.path).parent.name) for each in files]
    assert found["svm"]["accuracy"] == round(float(right.mean()), 4)


def check_deck(merged: ROVolume, found: dict[str, dict], directory: Path) -> None:
    """The report's deck has the table and the page."""
    [deck] = [text for path in directory.rglob("deck.html") if "volume-page" in (text := path.read_text())]
    assert merged.version in deck and "4 experiments" in deck and "<svg" in deck
    for name, each in found.items():
        assert f"<td>{name}</td><td>{each['model']}</td>" in deck
