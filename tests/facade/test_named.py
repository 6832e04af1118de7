"""Volumes opened by name: what several writers of one head can expect of each other."""

from __future__ import annotations

import asyncio
import io
import pickle
import shutil

import pytest
from facade_kit import committed, contents, objects, working_copies, write

from volume_core import (
    ConflictError,
    ExistsError,
    InvalidNameError,
    NotFoundError,
    ROVolume,
    RWVolume,
    Volume,
    VolumeError,
)
from volume_core.parts import publishing


@pytest.fixture
def shared(driver):
    """A named volume with two files, and a way to open it as another writer would."""
    with Volume.from_name_sync("shared", create_if_missing=True).mounted_sync(driver=driver) as path:
        write(path, {"a.txt": "a", "d/b.txt": "b"})
    return lambda **options: Volume.from_name_sync("shared", **options)


def head() -> ROVolume:
    return Volume.from_name_sync("shared").committed


def log_of(version: ROVolume) -> list[str]:
    return [entry.volume.version for entry in version.log_sync()]


def test_a_name_opens_what_was_committed_to_it(shared):
    assert {"a.txt": "a", "d/b.txt": "b"} == contents(shared())


def test_there_is_no_volume_before_somebody_makes_it():
    with pytest.raises(NotFoundError, match="no volume 'nothing'"):
        Volume.from_name_sync("nothing")
    made = Volume.from_name_sync("nothing", create_if_missing=True)

    assert set() == {name for name in objects() if not name.startswith("format")}
    assert made.index is None
    made.commit_sync()
    assert made.committed == Volume.from_name_sync("nothing").committed


def test_a_version_of_a_name_is_read_only(shared):
    version = head()

    for given in (version.version, version.version[:8]):
        found = shared(version=given)
        assert isinstance(found, ROVolume)
        assert version == found
    with pytest.raises(NotFoundError):
        shared(version="0000000000")


@pytest.mark.parametrize("policy", ["theirs", ""])
def test_a_policy_that_is_none_is_refused(policy):
    with pytest.raises(InvalidNameError, match="on_conflict"):
        Volume.from_name_sync("x", create_if_missing=True, on_conflict=policy)


def test_two_writers_of_different_files_both_get_in(shared, driver):
    one, other = shared(), shared()
    write(one.mount_sync(driver=driver), {"one.txt": "1", "d/one.txt": "1"})
    write(other.mount_sync(driver=driver), {"other.txt": "2", "d/other.txt": "2"})
    first, second = one.finalize_sync(), other.finalize_sync()

    expected = {"a.txt": "a", "d/b.txt": "b", "one.txt": "1", "d/one.txt": "1", "other.txt": "2", "d/other.txt": "2"}
    assert expected == contents(second)
    assert second == head()
    assert [second.version, first.version] == log_of(second)[:2]
    assert 3 == len(log_of(second))
    assert [] == second.verify_sync()


def test_the_later_commit_of_one_file_wins(shared, driver):
    one, other = shared(), shared()
    write(one.mount_sync(driver=driver), {"a.txt": "one"})
    write(other.mount_sync(driver=driver), {"a.txt": "other"})
    other.finalize_sync()
    one.finalize_sync()

    assert "one" == contents(head())["a.txt"]


def test_a_conflict_is_an_error_where_that_was_asked_for_and_nothing_is_lost(shared, driver):
    one, other = shared(on_conflict="error"), shared()
    path = one.mount_sync(driver=driver)
    write(path, {"a.txt": "mine", "mine.txt": "m"})
    write(other.mount_sync(driver=driver), {"a.txt": "theirs"})
    (other.mount_path / "d" / "b.txt").unlink()
    theirs = other.finalize_sync()
    before = {name for name in objects() if name.startswith("versions/")}

    with pytest.raises(ConflictError, match=r"a\.txt") as caught:
        one.commit_sync()
    assert ("a.txt",) == tuple(caught.value.paths)
    assert theirs == head()
    assert before == {name for name in objects() if name.startswith("versions/")}
    assert "mine" == (path / "a.txt").read_text()
    assert one.status_sync().changed
    one.abandon_sync()


def test_the_policy_of_one_commit_goes_before_that_of_the_handle(shared, driver):
    one, other = shared(on_conflict="error"), shared()
    write(one.mount_sync(driver=driver), {"a.txt": "mine"})
    write(other.mount_sync(driver=driver), {"a.txt": "theirs"})
    other.finalize_sync()
    with pytest.raises(ConflictError):
        one.commit_sync()
    one.commit_sync(on_conflict="last-write-wins")

    assert "mine" == contents(head())["a.txt"]
    one.abandon_sync()


def test_a_delete_against_a_change_is_a_conflict(shared, driver):
    one, other = shared(on_conflict="error"), shared()
    (one.mount_sync(driver=driver) / "a.txt").unlink()
    write(other.mount_sync(driver=driver), {"a.txt": "changed"})
    other.finalize_sync()

    with pytest.raises(ConflictError, match=r"a\.txt"):
        one.commit_sync()
    one.abandon_sync()


def test_a_mount_that_is_kept_goes_on_committing_what_it_changes(shared, driver):
    """Each commit is relative to this writer's last, though versions hold what others did in between."""
    one = shared()
    path = one.mount_sync(driver=driver)
    write(path, {"mine.txt": "1", "gone.txt": "x"})
    one.commit_sync()
    other = shared()
    write(other.mount_sync(driver=driver), {"theirs.txt": "2", "mine2.txt": "theirs"})
    other.finalize_sync()
    write(path, {"mine.txt": "2"})
    second = one.commit_sync()
    assert {
        "a.txt": "a",
        "d/b.txt": "b",
        "mine.txt": "2",
        "gone.txt": "x",
        "theirs.txt": "2",
        "mine2.txt": "theirs",
    } == (contents(second))
    (path / "gone.txt").unlink()
    third = one.commit_sync()
    assert "gone.txt" not in contents(third)
    assert "2" == contents(third)["theirs.txt"]
    assert third == one.commit_sync()  # nothing changed
    write(path, {"d/b.txt": "changed"})
    fourth = one.finalize_sync()

    assert {"a.txt": "a", "d/b.txt": "changed", "mine.txt": "2", "theirs.txt": "2", "mine2.txt": "theirs"} == contents(
        fourth
    )
    assert [fourth.version, third.version, second.version] == log_of(fourth)[:3]
    assert [] == working_copies()


def test_what_another_changes_after_a_commit_is_not_taken_back_by_the_next(shared, driver):
    one = shared()
    path = one.mount_sync(driver=driver)
    write(path, {"f.txt": "one"})
    one.commit_sync()
    other = shared()
    write(other.mount_sync(driver=driver), {"f.txt": "other"})
    other.finalize_sync()
    write(path, {"unrelated.txt": "x"})
    assert "other" == contents(one.commit_sync())["f.txt"]
    write(path, {"unrelated2.txt": "x"})
    assert "other" == contents(one.finalize_sync())["f.txt"]


def test_a_kept_mount_is_recovered_as_the_named_volume_that_it_was(shared, driver, python):
    other = shared()
    one = shared()
    write(one.mount_sync(driver=driver), {"first.txt": "1"})
    write(other.mount_sync(driver=driver), {"theirs.txt": "2"})
    other.finalize_sync()
    one.commit_sync()
    write(one.mount_path, {"second.txt": "2"})
    kept = one.close_sync()
    recovered = Volume.recover_sync(kept)
    version = recovered.finalize_sync()

    assert {"first.txt", "second.txt", "theirs.txt"} < set(contents(version))
    assert version == head()


def test_a_line_of_its_own_moves_a_head_only_forward():
    first = committed("own")
    assert first == Volume.from_name_sync("own").committed
    fork = first.fork_sync("own")
    with fork.mounted_sync(driver="copy") as path:
        write(path, {"x": "x"})
    assert fork.committed == Volume.from_name_sync("own").committed
    with first.fork_sync("own").mounted_sync(driver="copy") as path:
        write(path, {"y": "y"})

    assert fork.committed == Volume.from_name_sync("own").committed  # not the line that left earlier


def test_promote_moves_the_head_on_purpose():
    first = committed("own")
    with first.fork_sync("own").mounted_sync(driver="copy") as path:
        write(path, {"x": "x"})
    assert first != Volume.from_name_sync("own").committed
    assert first == first.promote_sync()
    assert first == Volume.from_name_sync("own").committed


def test_promote_to_another_name_makes_it_a_version_of_that():
    first = committed("own")
    made = first.promote_sync("other")

    assert ("other", contents(first)) == (made.name, contents(made))
    assert made == Volume.from_name_sync("other").committed
    assert [made.version, first.version] == log_of(made)


def test_a_deleted_volume_is_gone_and_its_forks_are_whole():
    first = committed("gone")
    fork = first.fork_sync("fork").commit_sync(even_if_unchanged=True)
    Volume.delete_sync("gone")

    with pytest.raises(NotFoundError):
        Volume.from_name_sync("gone")
    with pytest.raises(NotFoundError):
        Volume.delete_sync("gone")
    assert ["fork"] == [each.name for each in Volume.list_sync()]
    assert {"a.txt": "a", "d/b.txt": "b"} == contents(Volume.from_locator_sync(fork.locator))
    assert [] == fork.verify_sync()


def test_a_writer_of_a_deleted_volume_is_told_and_keeps_its_work(shared, driver):
    one = shared()
    write(one.mount_sync(driver=driver), {"mine": "m"})
    Volume.delete_sync("shared")

    with pytest.raises(NotFoundError, match="deleted"):
        one.commit_sync()
    assert "m" == (one.mount_path / "mine").read_text()
    one.abandon_sync()


def test_a_store_lists_its_volumes():
    first, other = committed("one"), committed("two")

    assert [("one", 1, first.locator, True), ("two", 1, other.locator, True)] == [
        (each.name, each.versions, each.locator, each.has_head) for each in Volume.list_sync()
    ]


def test_an_ephemeral_volume_is_gone_afterwards():
    with Volume.ephemeral() as volume:
        with volume.mounted_sync(driver="copy") as path:
            write(path, {"x": "x"})
        name, version = volume.name, volume.committed
        assert {"x": "x"} == contents(version)
        volume.mount_sync(driver="copy")
    assert name not in [each.name for each in Volume.list_sync()]
    assert [] == working_copies()


def test_an_ephemeral_volume_in_an_async_program():
    async def program():
        async with Volume.ephemeral() as volume:
            await volume.commit("empty")
            return volume.name

    name = asyncio.run(program())
    assert name.startswith("ephemeral-")
    assert [] == Volume.list_sync()


def test_a_pickled_handle_is_still_opened_by_name(shared):
    copy = pickle.loads(pickle.dumps(shared(on_conflict="error")))

    assert isinstance(copy, RWVolume)
    assert copy.reload_sync() == head()


def test_a_fork_of_a_named_volume_is_a_line_of_its_own(shared, driver):
    fork = shared().fork_sync("fork")
    with fork.mounted_sync(driver=driver) as path:
        write(path, {"only": "here"})

    assert "only" not in contents(head())
    with pytest.raises(VolumeError, match="not opened by name"):
        fork.reload_sync()


def test_batches_of_two_writers_both_get_in(shared):
    one, other = shared(), shared()
    with one.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"1"), "one.txt")
    with other.batch_upload_sync(force=True) as batch:
        batch.put_file(io.BytesIO(b"2"), "other.txt")
        batch.put_file(io.BytesIO(b"changed"), "a.txt")
        batch.remove("d/b.txt")

    assert batch.version == head() == other.committed
    assert {"one.txt": "1", "other.txt": "2", "a.txt": "changed"} == contents(head())
    one.remove_file_sync("one.txt")
    assert {"other.txt", "a.txt"} == set(contents(head()))
    one.copy_files_sync(["other.txt"], "copied.txt")
    assert {"other.txt", "a.txt", "copied.txt"} == set(contents(head()))


def test_a_batch_that_conflicts_publishes_nothing(shared):
    one, other = shared(on_conflict="error"), shared()
    with other.batch_upload_sync(force=True) as batch:
        batch.put_file(io.BytesIO(b"theirs"), "a.txt")
    with (
        pytest.raises(ConflictError, match=r"a\.txt"),
        one.batch_upload_sync(force=True) as mine,
    ):
        mine.put_file(io.BytesIO(b"mine"), "a.txt")
    assert batch.version == head()


def test_a_batch_without_force_does_not_replace_what_another_has_just_made(shared):
    one, other = shared(), shared()
    with other.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"theirs"), "new.txt")
    with pytest.raises(ExistsError) as caught, one.batch_upload_sync() as mine:
        mine.put_file(io.BytesIO(b"mine"), "new.txt")
    assert ("new.txt",) == caught.value.paths
    assert batch.version == head()
    with one.batch_upload_sync(force=True) as mine:
        mine.put_file(io.BytesIO(b"mine"), "new.txt")
    assert "mine" == contents(head())["new.txt"]


def test_a_first_batch_makes_the_volume():
    volume = Volume.from_name_sync("made", create_if_missing=True)
    with volume.batch_upload_sync() as batch:
        batch.put_file(io.BytesIO(b"x"), "x")

    assert batch.version == Volume.from_name_sync("made").committed


def both(shared, driver, mine, theirs, **options):
    """Let two writers change one version, *theirs* committed first; return what each commit came to, or the error."""
    one, other = shared(**options), shared()
    mine(one.mount_sync(driver=driver))
    theirs(other.mount_sync(driver=driver))
    other.finalize_sync("theirs")
    try:
        return contents(one.finalize_sync("mine"))
    except ConflictError as error:
        one.abandon_sync()
        return error.paths


def test_mkdir_of_one_directory_on_both_sides_is_no_conflict(shared, driver):
    def make(name):
        def made(path):
            (path / "new").mkdir()
            (path / "new" / name).write_text(name)

        return made

    assert {"new/mine": "mine", "new/theirs": "theirs"}.items() <= (
        both(shared, driver, make("mine"), make("theirs"), on_conflict="error").items()
    )


def below(path):
    (path / "d" / "new.txt").write_text("n")


def removed(path):
    shutil.rmtree(path / "d")


def renamed(path):
    (path / "d").rename(path / "e")


def edited(path):
    (path / "d" / "b.txt").write_text("edited")


def test_rm_r_against_a_new_file_below_it(shared, driver):
    assert {"a.txt": "a", "d/new.txt": "n"} == both(shared, driver, removed, below)


def test_rm_r_against_a_new_file_below_it_is_a_conflict(shared, driver):
    assert ("d/new.txt",) == both(shared, driver, removed, below, on_conflict="error")


def test_a_new_file_below_what_was_removed(shared, driver):
    assert {"a.txt": "a", "d/new.txt": "n"} == both(shared, driver, below, removed)


def test_a_renamed_directory_against_an_edit_inside_it(shared, driver):
    assert {"a.txt": "a", "d/b.txt": "edited", "e/b.txt": "b"} == both(shared, driver, renamed, edited)


def test_a_renamed_directory_against_an_edit_inside_it_is_a_conflict(shared, driver):
    assert ("d/b.txt",) == both(shared, driver, renamed, edited, on_conflict="error")


def test_an_edit_inside_a_directory_that_was_renamed(shared, driver):
    assert {"a.txt": "a", "d/b.txt": "edited", "e/b.txt": "b"} == both(shared, driver, edited, renamed)


def test_keep_both_keeps_both(shared, driver):
    def write_a(text):
        return lambda path: (path / "a.txt").write_text(text)

    found = both(shared, driver, write_a("mine"), write_a("theirs"), on_conflict="keep-both")
    assert "theirs" == found.pop("a.txt")
    [beside] = [name for name in found if name.startswith("a.conflict-") and name.endswith(".txt")]
    assert "mine" == found[beside]


@pytest.mark.parametrize("hours", [-10_000, 10_000])
def test_a_wrong_clock_does_not_matter(shared, driver, monkeypatch, hours):
    """Which commit is the later one is said by the head, not by anybody's clock."""
    real = publishing.iso_utc
    one, other = shared(), shared()
    write(one.mount_sync(driver=driver), {"a.txt": "one"})
    write(other.mount_sync(driver=driver), {"a.txt": "other", "b.txt": "b"})
    monkeypatch.setattr(publishing, "iso_utc", lambda ns: real(ns + hours * 3_600 * 10**9))
    first = one.finalize_sync()
    monkeypatch.setattr(publishing, "iso_utc", real)
    second = other.finalize_sync()

    assert {"a.txt": "other", "b.txt": "b", "d/b.txt": "b"} == contents(head())
    assert [second.version, first.version] == log_of(second)[:2]
