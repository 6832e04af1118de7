"""A path that a task returns is there in the next task, on another machine: one with a state directory of its own."""

from __future__ import annotations

import pytest

from volume_core import Volume, mounts

DRIVERS = ["copy", pytest.param("kernel", marks=pytest.mark.fuse)]


@pytest.fixture(params=DRIVERS)
def machine(request, tmp_path, monkeypatch):
    """Go to another machine: only the store, and where mounts go, are the same."""
    monkeypatch.setenv("VOLUME_DRIVER", request.param)
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "volumes"))
    monkeypatch.setenv("VOLUME_BUCKET", str(tmp_path / "store"))
    return lambda name: monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / f"state-{name}"))


def test_a_returned_path_is_there_in_the_next_task(machine, tmp_path):
    machine("one")
    models = Volume.from_name_sync("models", create_if_missing=True)
    with models.mounted_sync():
        model = models / "run-1" / "model.bin"
        model.parent.mkdir()
        model.write_bytes(b"weights")

    assert tmp_path / "volumes" / "models" / "run-1" / "model.bin" == model
    assert not model.exists()

    machine("two")
    with Volume.from_name_lazy("models").mounted_sync():
        assert b"weights" == model.read_bytes()


def test_so_it_is_below_mounts(machine, tmp_path):
    place = tmp_path / "volumes" / "models"

    @mounts({place: Volume.from_name_lazy("models", create_if_missing=True)})
    def train():
        (place / "model.bin").write_bytes(b"weights")
        return place / "model.bin"

    @mounts({place: Volume.from_name_lazy("models")})
    def evaluate(path):
        return path.read_bytes()

    machine("one")
    path = train()
    machine("two")

    assert b"weights" == evaluate(path)


def test_a_task_at_the_same_time_has_a_path_of_its_own(machine):
    machine("one")
    models = Volume.from_name_lazy("models", create_if_missing=True)
    with models.mounted_sync() as first, models.mounted_sync() as second:
        (first / "a").write_text("a")
        (second / "b").write_text("b")

    assert "models" == first.name != second.name
    assert ["a", "b"] == [entry.path for entry in models.open_sync().listdir_sync()]
