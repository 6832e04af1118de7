"""Several volumes for the length of a call: every kind of function, every way to end, many at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import os
import pickle
import threading

import pytest
from facade_kit import committed, contents, mounts_below, read, working_copies, write

from volume_core import (
    BusyError,
    ConflictError,
    InvalidNameError,
    MountError,
    StorageError,
    Volume,
    VolumeError,
    mounts,
)
from volume_core.facade.writers import Writer


@pytest.fixture
def at(tmp_path):
    return lambda name: str(tmp_path / "at" / name)


def lazily(name="data", **how):
    return Volume.from_name_lazy(name, create_if_missing=True, **how)


def head(name="data"):
    return lazily(name).open_sync().committed


def test_each_call_mounts_runs_and_commits(driver, at, tmp_path):
    source = committed("source", {"in.txt": "7"})

    @mounts({at("data"): lazily(), at("in"): source}, driver=driver, message="made")
    def task(number: int, *, times: int = 2) -> int:
        """Works."""
        found = int((tmp_path / "at/in/in.txt").read_text())
        write(tmp_path / "at/data", {str(number): str(found * times)})
        with pytest.raises(OSError, match="Read-only"):
            write(tmp_path / "at/in", {"x": ""})
        return found * number

    assert (14, 21) == (task(2), task(3, times=1))
    assert {"2": "14", "3": "7"} == contents(head())
    assert ["made", "made"] == [entry.volume.message for entry in head().log_sync()]
    assert [] == mounts_below(tmp_path) == working_copies()
    assert ("task", "Works.", "(number: 'int', *, times: 'int' = 2) -> 'int'") == (
        task.__name__, task.__doc__, str(inspect.signature(task)),
    )  # fmt: skip
    assert not os.path.exists(at("data"))


def test_after_an_error_nothing_is_committed_for_any(driver, at, tmp_path):
    @mounts({at("a"): lazily("a"), at("b"): lazily("b"), at("in"): committed("source")}, driver=driver)
    def task():
        write(tmp_path / "at/a", {"x": "1"})
        write(tmp_path / "at/b", {"y": "2"})
        raise KeyError("the task's own")

    with pytest.raises(KeyError, match="the task's own") as caught:
        task()
    notes = caught.value.__notes__

    assert [at("b"), at("a")] == [note.split(": ")[0] for note in notes]
    assert 2 == len(working_copies()) == sum(work_id in "".join(notes) for work_id in working_copies())
    assert (None, None) == (head("a"), head("b"))
    kept = [Volume.recover_sync(work_id).finalize_sync() for work_id in working_copies()]
    assert {"a": {"x": "1"}, "b": {"y": "2"}} == {version.name: contents(version) for version in kept}


def test_where_one_cannot_be_committed_the_error_says_which_are(driver, at, tmp_path, monkeypatch):
    commit = Writer.commit

    def failing(writer, *args, **kwargs):
        if writer.line.name == "b":
            raise StorageError("the store is gone")
        return commit(writer, *args, **kwargs)

    monkeypatch.setattr(Writer, "commit", failing)

    @mounts({at(name): lazily(name) for name in "abc"}, driver=driver)
    def task():
        for name in "abc":
            write(tmp_path / "at" / name, {"x": "1"})

    with pytest.raises(StorageError) as caught:
        task()
    c, b, a = caught.value.__notes__

    assert f"{at('a')}: volume 'a' is committed: {head('a').locator}" == a
    assert "volume commit" in b and "volume commit" in c
    assert 2 == len(working_copies())


def test_as_a_with_statement_it_gives_paths_and_versions(driver, at):
    source, line = committed("source"), Volume.new("line")
    with mounts({at("in"): source, at("out"): line}, driver=driver) as mounted:
        assert {at("in"): source} == mounted.versions
        write(mounted.volumes[at("out")] / "d", {"x": "1"})

    assert {at("in"): source, at("out"): line.committed} == mounted.versions
    assert [at("in"), at("out")] == [str(path) for path in mounted.paths.values()]
    assert {"d/x": "1"} == contents(line.committed)


def test_a_coroutine_function(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    async def task(text):
        await asyncio.sleep(0)
        write(tmp_path / "at/data", {"x": text})
        if text == "bad":
            raise ValueError(text)
        return text

    assert inspect.iscoroutinefunction(task)
    assert "1" == asyncio.run(task("1"))
    with pytest.raises(ValueError, match="bad") as caught:
        asyncio.run(task("bad"))
    assert "volume commit" in caught.value.__notes__[0]
    assert {"x": "1"} == contents(head())


def test_a_cancelled_task_commits_nothing(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    async def task():
        write(tmp_path / "at/data", {"x": "1"})
        await asyncio.sleep(600)

    async def main():
        async with asyncio.timeout(0.5):
            await task()

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert head() is None
    assert [] == mounts_below(tmp_path)


def test_async_with(driver, at):
    async def main():
        async with mounts({at("data"): lazily()}, driver=driver) as mounted:
            write(mounted.paths[at("data")], {"x": "1"})
        return mounted.versions[at("data")]

    assert {"x": "1"} == contents(asyncio.run(main()))


def test_a_generator_has_its_volumes_from_its_first_step_to_its_end(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    def steps():
        got = []
        while len(got) < 2:
            write(tmp_path / "at/data", {str(len(got)): "x"})
            try:
                got.append((yield len(got)))
            except KeyError as error:
                got.append(error.args[0])
        return got

    assert inspect.isgeneratorfunction(steps)
    running = steps()
    assert not os.path.exists(at("data"))
    assert 0 == next(running)
    assert 1 == running.send("sent")
    with pytest.raises(StopIteration) as ended:
        running.throw(KeyError("thrown"))
    assert ["sent", "thrown"] == ended.value.value
    assert {"0": "x", "1": "x"} == contents(head())


def test_an_asynchronous_generator_too(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    async def steps():
        try:
            write(tmp_path / "at/data", {"got": str((yield 1))})
        except KeyError:
            write(tmp_path / "at/data", {"thrown": ""})
        yield 2

    async def main(step):
        running = steps()
        return await anext(running), await step(running), [rest async for rest in running]

    assert inspect.isasyncgenfunction(steps)
    assert (1, 2, []) == asyncio.run(main(lambda running: running.asend("sent")))
    assert {"got": "sent"} == contents(head())
    assert (1, 2, []) == asyncio.run(main(lambda running: running.athrow(KeyError())))
    assert {"got": "sent", "thrown": ""} == contents(head())


@pytest.mark.loud
def test_a_generator_that_is_closed_before_its_end_commits_nothing_and_says_so(driver, at, tmp_path, caplog):
    @mounts({at("data"): lazily()}, driver=driver)
    def steps():
        write(tmp_path / "at/data", {"half": ""})
        yield

    @mounts({at("data"): lazily()}, driver=driver)
    async def asynchronous():
        write(tmp_path / "at/data", {"half": ""})
        yield

    async def one_step():
        running = asynchronous()
        await anext(running)
        await running.aclose()

    for _ in steps():
        break
    asyncio.run(one_step())

    assert head() is None
    assert 2 == len(working_copies()) == sum(work_id in caplog.text for work_id in working_copies())
    assert [] == mounts_below(tmp_path)


def test_readers_at_one_path_share_a_mount_and_the_last_one_unmounts(driver, at, tmp_path):
    version, gate = committed(), threading.Barrier(4)

    @mounts({at("in"): version}, driver=driver)
    def task(depth=0):
        if not depth:
            gate.wait(60)
            return task(1)
        found = read(tmp_path / "at/in")
        gate.wait(60)
        return found

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [each.result() for each in [pool.submit(task) for _ in range(4)]]
    assert [{"a.txt": "a", "d/b.txt": "b"}] * 4 == found
    assert not os.path.exists(at("in"))
    assert version.mount_path is None


def test_a_reader_that_is_mounted_elsewhere_stays_there(driver, at):
    version = committed()
    with version.mounted_sync(driver=driver) as own, mounts({at("1"): version, at("2"): version}) as mounted:
        assert read(own) == read(mounted.paths[at("1")]) == read(mounted.paths[at("2")])
        assert own == version.mount_path


def test_what_others_commit_meanwhile_stays(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    def task():
        write(tmp_path / "at/data", {"ours": ""})
        with lazily().mounted_sync(driver=driver) as path:
            write(path, {"theirs": ""})

    @mounts({at("data"): lazily(on_conflict="error")}, driver=driver)
    def careful():
        write(tmp_path / "at/data", {"ours": "1"})
        with lazily().mounted_sync(driver=driver) as path:
            write(path, {"ours": "2"})

    task()
    assert {"ours": "", "theirs": ""} == contents(head())
    with pytest.raises(ConflictError) as caught:
        careful()
    assert "volume commit" in caught.value.__notes__[0]
    assert {"ours": "2", "theirs": ""} == contents(head())


def test_a_writers_path_is_its_own(driver, at, tmp_path):
    line = Volume.new("line")

    @mounts({at("data"): lazily()}, driver=driver)
    def recursive(depth):
        write(tmp_path / "at/data", {str(depth): ""})
        if depth:
            recursive(depth - 1)

    with pytest.raises(BusyError, match="another call in this process"):
        recursive(1)
    recursive(0)
    assert {"0": ""} == contents(head())

    with mounts({at("data"): committed()}), pytest.raises(BusyError, match="file://"):
        recursive(0)
    with line.mounted_sync(driver=driver), pytest.raises(BusyError, match="mounted already"):
        mounts({at("data"): line}).__enter__()
    assert [] == mounts_below(tmp_path)


def test_where_one_cannot_be_mounted_none_is(driver, at, tmp_path):
    write(tmp_path / "at/full", {"x": ""})
    together = mounts({at("a"): lazily("a"), at("full"): lazily("b")}, driver=driver)
    for _ in range(2):
        with pytest.raises(MountError, match="not empty"):
            together.__enter__()

    assert [] == mounts_below(tmp_path) == working_copies()
    assert not os.path.exists(at("a"))


def test_a_line_goes_on_from_call_to_call(driver, at, tmp_path):
    line = Volume.new("line")

    @mounts({at("data"): line}, driver=driver)
    def task(name):
        write(tmp_path / "at/data", {name: ""})

    task("a")
    task("b")

    assert {"a": "", "b": ""} == contents(line.committed)
    assert 2 == len(line.committed.log_sync())


def test_what_cannot_be_is_said_at_once(at):
    line = Volume.new("line")
    for paths in (("/a", "/a/"), ("/a", "/a/b"), ("/a/../b/c", "/b")):
        with pytest.raises(VolumeError, match="side by side"):
            mounts(dict.fromkeys(paths, lazily()))
    with pytest.raises(VolumeError, match="fork it"):
        mounts({"/a": line, "/b": line})
    with pytest.raises(TypeError, match="no volume"):
        mounts({"/a": "data"})
    with pytest.raises(TypeError, match="checkpoint_evry"):
        mounts({"/a": line}, checkpoint_evry=3)
    with pytest.raises(VolumeError, match="on_terminate"):
        mounts({"/a": line}, on_terminate="ignore")
    with pytest.raises(VolumeError, match="checkpoint_every"):
        line.mounted_sync(checkpoint_every=0)
    with pytest.raises(InvalidNameError):
        Volume.from_name_lazy("../x")
    with pytest.raises(InvalidNameError, match="on_conflict"):
        Volume.from_name_lazy("x", on_conflict="fight")


def test_a_task_that_an_engines_decorator_has_made_is_no_function_any_more(at):
    class Task:
        def __init__(self, function):
            self.function = function
            functools.update_wrapper(self, function)

        def __call__(self):
            return self.function()

    with pytest.raises(VolumeError, match="train is a Task and no function: put @mounts below the decorator"):

        @mounts({at("data"): lazily()})
        @Task
        def train(): ...

    assert 8 == mounts({})(functools.partial(pow, 2))(3)
    assert 8 == mounts({})(pow)(2, 3)


def test_a_synchronous_task_below_a_running_loop(driver, at, tmp_path):
    @mounts({at("data"): lazily()}, driver=driver)
    def task(name):
        write(tmp_path / "at/data", {name: ""})

    async def main():
        task("in the loop's thread")
        await asyncio.to_thread(task, "in a thread of it")

    asyncio.run(main())
    assert {"in the loop's thread", "in a thread of it"} == set(contents(head()))


def test_a_lazy_volume_is_a_value_and_can_be_mounted_by_itself(driver):
    lazy = lazily("data", bucket="memory://lazy")
    assert lazy == pickle.loads(pickle.dumps(lazy)) and hash(lazy) == hash(lazily("data", bucket="memory://lazy"))
    assert "Volume.from_name_lazy('data', bucket='memory://lazy', create_if_missing=True)" == repr(lazy)
    with lazily().mounted_sync(driver=driver, message="by itself") as path:
        write(path, {"x": "1"})
    assert ("by itself", {"x": "1"}) == (head().message, contents(head()))
    with lazily(version=head().version).mounted_sync(driver=driver, message="for writers only") as path:
        assert {"x": "1"} == read(path)
        with pytest.raises(OSError, match="Read-only"):
            write(path, {"y": ""})


@mounts({"/never": Volume.new("never", "memory://never")})
def at_the_top():
    """Pickled by its name."""


def test_a_decorated_function_is_pickled_by_its_name():
    assert pickle.loads(pickle.dumps(at_the_top)) is at_the_top
