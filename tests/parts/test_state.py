"""Local state lies where it was asked for, and is closed to others."""

import os
import stat
from pathlib import Path

import pytest

from volume_core.errors import VolumeError
from volume_core.facade.settings import mount_root
from volume_core.parts.state import State
from volume_core.storage.opening import normalize, open_store


def test_the_environment_says_where(monkeypatch, tmp_path):
    monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "here"))

    assert tmp_path / "here" == State.default().root


@pytest.mark.parametrize("value", [None, ""])
def test_the_home_directory_is_the_default(monkeypatch, tmp_path, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    if value is None:
        monkeypatch.delenv("VOLUME_STATE_DIR", raising=False)
    else:
        monkeypatch.setenv("VOLUME_STATE_DIR", value)

    assert tmp_path / ".volumes" == State.default().root


def test_relative_paths_and_homes_become_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    assert tmp_path / "state" == State.at("state/../state").root
    assert tmp_path / "state" == State.at("~/state").root


def test_without_a_home_nothing_is_put_where_one_happens_to_be(monkeypatch, tmp_path):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("VOLUME_STATE_DIR", raising=False)
    monkeypatch.delenv("VOLUME_MOUNT_ROOT", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # no entry in /etc/passwd
    monkeypatch.chdir(tmp_path)

    with pytest.raises(VolumeError, match=r"VOLUME_STATE_DIR"):
        State.default()
    with pytest.raises(VolumeError, match=r"VOLUME_MOUNT_ROOT"):
        mount_root()


def test_nothing_is_made_before_it_is_asked_for(tmp_path):
    state = State.at(tmp_path / "a" / "b")

    assert not state.root.exists()
    assert state is state.prepare().prepare()
    for directory in (state.root, state.work, state.mounts, state.cache, state.layers, state.packs):
        assert 0o700 == stat.S_IMODE(directory.stat().st_mode)


def test_in_a_directory_that_is_open_to_others_everything_is_closed(tmp_path):
    tmp_path.chmod(0o755)  # an emptyDir, or what the user made himself

    State.at(tmp_path).prepare()

    assert {0o700} == {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert "store" in os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["plain", "with blank", "100%41", "ü", os.fsdecode(b"\xff")])
def test_the_default_store_lies_in_it_whatever_its_name(tmp_path, name):
    state = State.at(tmp_path / name).prepare()
    store = open_store(state.default_store_url)
    store.put("packs/x", b"data")
    store.close()

    assert normalize(state.default_store_url) == state.default_store_url
    assert b"data" == Path(state.root / "store" / "packs" / "x").read_bytes()


def test_a_root_that_cannot_be_made_is_named_with_the_variable_that_says_where_it_is(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as raised:
        State.at(tmp_path / "file" / "state").prepare()
    assert any("$VOLUME_STATE_DIR" in note for note in raised.value.__notes__)
