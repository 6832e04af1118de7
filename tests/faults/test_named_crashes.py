"""The table of docs/durability.md for named volumes, row by row: a process is killed -9 after each step of a commit
whose head has moved; another changes what it wrote before it is recovered."""

from __future__ import annotations

import os
from pathlib import Path

import named_committer
import pytest
import reloader
from test_crash_table import started

from volume_core import Volume, VolumeError
from volume_core.facade.browsing import browse
from volume_core.facade.writers import Writer
from volume_core.format.entries import Kind
from volume_core.parts.state import State
from volume_core.parts.workcopies import list_all
from volume_core.storage.local import LocalStore

pytestmark = pytest.mark.faults
DURABILITY = Path(__file__).parents[2] / "docs" / "durability.md"
LANDED = {"the head was moved", "what was captured was noted", "the record was replaced"}


def table() -> list[list[str]]:
    """The rows of the table under "Named volumes"."""
    text = DURABILITY.read_text().split("## Named volumes")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def files_of(version):
    with browse(version._existing()) as browser:
        nodes = [node for node in browser.view.walk() if node.row.kind == Kind.FILE]
        return {os.fsdecode(node.path): b"".join(browser.stream(node)).decode() for node in nodes}


def by_another(url, message, files):
    other = Volume.from_name_sync("shared", url)
    with other.mounted_sync(driver="copy", message=message) as path:
        for name, text in files.items():
            (path / name).write_text(text)


def head(url):
    return Volume.from_name_sync("shared", url).committed


def test_every_row_of_the_table_has_a_test_and_every_test_a_row():
    assert {row[0] for row in table()} == named_committer.STEPS.keys()
    for crash, named, _, _ in table():
        assert ("names the new version" in named) == (crash in LANDED)


@pytest.mark.parametrize("crash", list(named_committer.STEPS))
def test_a_commit_to_a_named_volume_is_killed_after(crash, tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    url = LocalStore(tmp_path / "store").url
    Volume.from_name_sync("shared", url, create_if_missing=True).commit_sync("empty")
    by_another(url, "base", {"base": "b"})
    with started(named_committer.__file__, url, str(tmp_path / "mount"), crash) as process:
        work_id = str(process.hear("working_copy"))
        by_another(url, "theirs", {"theirs": "t"})
        process.go()
        process.hear("stopped")
        process.kill()
    landed = crash in LANDED

    assert ("second" if landed else "theirs") == head(url).message
    expected = {"mine": "2", "theirs": "t"} if landed else {"mine": "1", "theirs": "t", "base": "b"}
    assert expected == files_of(head(url))
    by_another(url, "later", {"mine": "later", "new": "n"})
    again = Volume.recover_sync(work_id).finalize_sync("second")

    # What had landed is not committed over what another made of it; what had not is this writer's later commit.
    assert {"mine": "later" if landed else "2", "theirs": "t", "new": "n"} == files_of(head(url))
    messages = [entry.volume.message for entry in head(url).log_sync()]
    assert (["later", "second"] if landed else ["second", "later"]) + ["theirs", "first", "base", "empty"] == messages
    assert [] == again.verify_sync()


@pytest.mark.parametrize("step", ["replay", "discard"])
def test_a_reload_is_killed_and_nothing_is_lost(step, tmp_path, monkeypatch):
    monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
    url = LocalStore(tmp_path / "store").url
    Volume.from_name_sync("shared", url, create_if_missing=True).commit_sync("empty")
    by_another(url, "base", {"base": "b"})
    with started(reloader.__file__, url, str(tmp_path / "mount"), step) as process:
        whole = str(process.hear("working_copy"))
        by_another(url, "theirs", {"theirs": "t"})
        process.go()
        process.hear("stopped")
        process.kill()
    copies = [copy.id for copy in list_all(State.default())]
    assert 2 == len(copies)
    [other] = [each for each in copies if each != whole]

    # One of them has everything, and the other says which.
    left, whole = (other, whole) if step == "replay" else (whole, other)
    with pytest.raises(VolumeError, match=f"what was written is in working copy {whole}"):
        Volume.recover_sync(left)
    Writer.drop(left)
    Volume.recover_sync(whole).finalize_sync("mine")

    assert {"mine": "1", "theirs": "t"} == files_of(head(url))
    messages = [entry.volume.message for entry in head(url).log_sync()]
    assert ["mine", "theirs", "base", "empty"] == messages
    assert [] == list_all(State.default())
