"""A flytekit pipeline on real data: one volume, a fork for each experiment, and the results merged into one version.

    digits ──┬── fork: linear ────┐
             ├── fork: neighbours ┼── merge ── report (a deck)
             ├── fork: svm ───────┤
             └── fork: forest ────┘

The data are the 1,797 images of handwritten digits that scikit-learn brings along, as one file each: no network.

Run it twice: the second time nothing is trained, for the contents are what they were.

Run it: python examples/flyte/train_forks.py
    or: pyflyte run examples/flyte/train_forks.py train_forks --seed 1
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import flytekit
import joblib
import numpy as np
from flytekit import map_task, task, workflow
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import accuracy_score, confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from volume_core import ROVolume, RWVolume, Volume
from volume_core.pages import version_page
from volume_flyte.v1.caching import VolumeHash

EXPERIMENTS = {
    "linear": RidgeClassifier(alpha=10),
    "neighbours": KNeighborsClassifier(n_neighbors=3),
    "svm": SVC(C=10, gamma=0.001),
    "forest": RandomForestClassifier(n_estimators=50),
}


@task
def ingest(seed: int) -> Annotated[RWVolume, VolumeHash]:
    """Write the data as files: `train/<digit>/<number>.npy` and `test/...`.

    What is returned is committed.  Each run makes another version, of the same contents, and by these it is keyed:
    so `train` runs again only where a file is another one.
    """
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    volume = Volume.new("digits")
    with volume.mounted_sync(message=f"{len(order)} images, seed {seed}") as path:
        for place, number in enumerate(order):
            part = "test" if place < len(order) // 4 else "train"
            directory = path / part / str(digits.target[number])
            directory.mkdir(parents=True, exist_ok=True)
            np.save(directory / f"{number:04}.npy", digits.images[number].astype(np.uint8))
    return volume


@task(cache=True, cache_version=joblib.hash(str(EXPERIMENTS)))
def train(experiment: str, data: ROVolume, seed: int) -> RWVolume:
    """Train on a fork of *data*, and leave the model and its metrics in it.

    A fork costs nothing: the images are those of *data*, and what is committed is what is written here.
    """
    model = clone(EXPERIMENTS[experiment])
    if "random_state" in model.get_params():
        model.set_params(random_state=seed)
    volume = data.fork_sync(f"digits-{experiment}")
    with volume.mounted_sync(message=f"trained {model}") as path:
        model.fit(*load(path / "train"))
        images, labels = load(path / "test")
        predicted = model.predict(images)
        metrics = {
            "model": str(model),
            "accuracy": round(float(accuracy_score(labels, predicted)), 4),
            "confusion": confusion_matrix(labels, predicted).tolist(),
        }
        results = path / "results" / experiment
        results.mkdir(parents=True)
        joblib.dump(model, results / "model.joblib")
        (results / "metrics.json").write_text(json.dumps(metrics))
    return volume


@task
def merge(trained: list[ROVolume]) -> ROVolume:
    """Make one version of all forks: each has added files of its own, so there is nothing to decide."""
    return Volume.merge_sync(trained, "digits", message=f"{len(trained)} experiments")


@task(enable_deck=True)
def report(merged: ROVolume) -> str:
    """Say which model is the best, and show all of them in the deck."""
    found = metrics_in(merged)
    ranked = sorted(found, key=lambda name: -found[name]["accuracy"])
    flytekit.Deck("results", table(found, ranked))
    flytekit.Deck("volume", version_page(merged))
    return f"{ranked[0]}: {found[ranked[0]]['accuracy']:.2%}"


@workflow
def train_forks(
    experiments: list[str] = list(EXPERIMENTS),  # noqa: B006 (Flyte makes a literal of it when the file is imported)
    seed: int = 0,
) -> tuple[ROVolume, str]:
    """Ingest, fork and train, merge, report."""
    data = ingest(seed=seed)
    trained = map_task(partial(train, data=data, seed=seed))(experiment=experiments)
    merged = merge(trained=trained)
    return merged, report(merged=merged)


def load(directory: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return (one row of 64 pixels per image, digits) of what lies in `<directory>/<digit>/`."""
    files = sorted(directory.glob("*/*.npy"))
    return np.stack([np.load(file).reshape(-1) for file in files]), np.array([int(file.parent.name) for file in files])


def metrics_in(version: ROVolume) -> dict[str, dict[str, Any]]:
    """Return each experiment's metrics: two small files of a version, read without mounting it."""
    found = {}
    for entry in version.listdir_sync("results/*/metrics.json"):
        text = b"".join(version.read_file_sync(entry.path))
        found[Path(entry.path).parent.name] = json.loads(text)
    return found


def table(found: dict[str, dict[str, Any]], ranked: list[str]) -> str:
    """Return the comparison as HTML."""
    rows = "".join(
        f"<tr><td>{name}</td><td>{found[name]['model']}</td><td>{found[name]['accuracy']:.2%}</td></tr>"
        for name in ranked
    )
    return f"<table><tr><th>experiment</th><th>model</th><th>accuracy</th></tr>{rows}</table>"


if __name__ == "__main__":
    version, best = train_forks()
    print(f"best: {best}")
    print(f"volume ls -R {version.locator}:/results")
