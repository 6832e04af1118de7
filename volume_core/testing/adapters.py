"""The suite that every engine's adapter must pass: inherit from AdapterContract and give five methods.

    class TestMyEngine(AdapterContract):
        loads = ("volume_my", "volume_my.hooks")    # what is loaded whether or not the engine is used
        engines = ("my_engine",)                    # what must not be loaded by that

        def run(self, *functions, given=()): ...    # each function as one real task of the engine, in this process
        def encode(self, value, declared): ...      # the engine's own conversion, to bytes
        def decode(self, data, declared): ...       # and back
        def receive(self, given, declared): ...     # what somebody types or posts, as a task gets it
        def is_retried(self, error): ...            # whether the engine tries again after run() raised that

Everything is real: tasks are the engine's, commits go into a directory store of the test's own, through the copy
driver, so the suite needs no privilege.  `encode` and `decode` are also called in another process, on an object made
by `TestMyEngine()`: what the engine needs for them belongs into these methods, not into fixtures.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Optional

import pytest

from volume_core import ROVolume, RWVolume, Volume, VolumeError, hookimpl
from volume_core.plugins import manager
from volume_core.storage.opening import open_store
from volume_core.storage.protocol import Store
from volume_core.testing.faulty import OPERATIONS, FaultyStore
from volume_core.testing.tasks import (
    add,
    fail_after_writing,
    held,
    make,
    make_dict,
    make_list,
    make_optional,
    make_two,
    mount_and_pass_on,
    pass_on,
    tell,
    tell_dict,
    tell_fork,
    tell_list,
    tell_optional,
    tell_two,
    told,
)

_WRITES = frozenset({"put_new", "put"})  # what a version is made of; its head and its intent come after and before
_TIMEOUT_S = 120
# What Python itself raises where nobody looked: an error that says nothing to whoever gave the value.
_SLIPS = (AttributeError, LookupError, NameError, RecursionError)

# -- what the suite looks with


class _Commits:
    """The versions that were committed in this process."""

    def __init__(self) -> None:
        self.versions: list[ROVolume] = []

    @hookimpl
    def volume_committed(self, version: ROVolume) -> None:
        """Note it."""
        self.versions.append(version)


class _Faults:
    """Opens the stores of this process, faulty ones after fail()."""

    def __init__(self) -> None:
        self.store: FaultyStore | None = None
        self._how: dict[str, Any] | None = None

    def fail(self, **how: Any) -> None:
        """Let the next store that is opened fail as FaultyStore(**how) does."""
        self.store, self._how = None, how

    def heal(self) -> None:
        """Let the store that fails be sound from now on."""
        if self.store is not None:
            self.store.heal()
        self._how = None

    @hookimpl(tryfirst=True)
    def volume_open_store(self, url: str) -> Store | None:
        """A faulty store over the real one."""
        if self._how is None:
            return None
        self.store = FaultyStore(open_store(url), **self._how)
        return self.store


def _published(store_url: str) -> set[str]:
    """The versions and heads that are in a store."""
    store = open_store(store_url)
    return {found.name for prefix in ("versions/", "heads/") for found in store.names(prefix)}


class AdapterContract:
    """What an engine's adapter promises; see above for what to give."""

    loads: Sequence[str] = ()
    engines: Sequence[str] = ()

    def run(self, *functions: Callable[..., Any], given: Sequence[object] = ()) -> Any:
        """Run *functions* one after the other, each as a task of the engine, and return what the last one returned.

        The first is called with *given*, each other one with what the one before returned, by the engine's own way
        from task to task; a tuple is two arguments.  What a task or a conversion raises, this raises, as the engine
        has it by then.
        """
        pytest.fail("give run()")

    def encode(self, value: Any, declared: Any) -> bytes:
        """Return what the engine keeps of *value*, where *declared* is the parameter's type.  No task is running."""
        pytest.fail("give encode()")

    def decode(self, data: bytes, declared: Any) -> Any:
        """Return what a task with a parameter *declared* so is given of *data*, which encode() made."""
        pytest.fail("give decode()")

    def receive(self, given: Any, declared: Any) -> Any:
        """Return what a task is given where somebody starts it with *given*: text, or what JSON holds."""
        pytest.fail("give receive()")

    def is_retried(self, error: BaseException) -> bool:
        """Whether the engine tries the task again after *error*, which run() raised, if it may at all."""
        pytest.fail("give is_retried()")

    def kept(self) -> RWVolume:
        """Return the writer with what the task wrote that has just failed: the one that the task had in hand.

        An adapter that takes the volumes of a failed task down gives the one that its work is recovered as.
        """
        return held[-1]

    # -- fixtures

    @pytest.fixture(autouse=True)
    def _place(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        """Everything of a test lies in its directory, and nothing needs a privilege."""
        monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("VOLUME_MOUNT_ROOT", str(tmp_path / "mounts"))
        monkeypatch.setenv("VOLUME_BUCKET", f"file://{tmp_path}/store")
        monkeypatch.setenv("VOLUME_DRIVER", "copy")
        held.clear()
        yield
        while held:
            held.pop().abandon_sync()

    @pytest.fixture
    def commits(self) -> Iterator[list[ROVolume]]:
        """The versions that were committed while the test ran."""
        found = _Commits()
        remove = manager.register(found)
        yield found.versions
        remove()

    @pytest.fixture
    def faults(self) -> Iterator[_Faults]:
        """What makes stores fail."""
        found = _Faults()
        remove = manager.register(found)
        yield found
        remove()

    @pytest.fixture
    def version(self) -> ROVolume:
        """A version with one file."""
        return make("data").finalize_sync("for a test")

    # -- manners

    def test_loading_the_adapter_imports_no_engine(self) -> None:
        program = (
            "import importlib, json, sys\n"
            "loads, engines = json.loads(sys.argv[1])\n"
            "for name in loads: importlib.import_module(name)\n"
            "from volume_core import Volume\n"
            "Volume.new('data').commit_sync('asks every hook')\n"
            "print(json.dumps(sorted(set(engines) & set(sys.modules))))"
        )
        assert self.loads and self.engines, "say what is loaded, and what must not be"
        assert [] == json.loads(_python(program, json.dumps([list(self.loads), list(self.engines)])))

    # -- one version is one value

    def test_a_version_comes_out_as_it_went_in(self, version: ROVolume) -> None:
        found = self.decode(self.encode(version, ROVolume), ROVolume)

        assert type(found) is ROVolume
        assert version == found
        assert version.model_dump() == found.model_dump()

    def test_one_version_is_the_same_bytes_however_it_was_come_by(self, version: ROVolume) -> None:
        wanted = self.encode(version, ROVolume)

        assert wanted == self.encode(self.decode(wanted, ROVolume), ROVolume)
        assert wanted == self.encode(Volume.from_locator_sync(version.locator), ROVolume)
        assert wanted == self.encode(ROVolume.model_validate_json(version.model_dump_json()), ROVolume)
        assert wanted == self.encode(version.fork_sync("data").commit_sync(), ROVolume)
        version.tag_sync("best")
        with version.mounted_sync():
            assert wanted == self.encode(version, ROVolume)

    def test_one_version_is_the_same_bytes_in_another_process(
        self, version: ROVolume, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        wanted = self.encode(version, ROVolume)
        program = (
            "import importlib, sys\n"
            "from volume_core import ROVolume, Volume\n"
            "module, name, locator = sys.argv[1:]\n"
            "suite = getattr(importlib.import_module(module), name)()\n"
            "print(suite.encode(Volume.from_locator_sync(locator), ROVolume).hex())"
        )
        monkeypatch.setenv("VOLUME_STATE_DIR", str(tmp_path / "another"))
        monkeypatch.setenv("PYTHONHASHSEED", "1")
        home = os.path.dirname(inspect.getfile(type(self)))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([home, *filter(None, sys.path)]))

        kind = type(self)
        assert wanted.hex() == _python(program, kind.__module__, kind.__qualname__, version.locator)

    def test_two_versions_are_different_bytes(self, version: ROVolume) -> None:
        other = version.fork_sync("data").commit_sync("another", even_if_unchanged=True)

        assert self.encode(version, ROVolume) != self.encode(other, ROVolume)

    def test_a_value_is_taken_out_where_the_store_does_not_answer(self, version: ROVolume, faults: _Faults) -> None:
        data = self.encode(version, ROVolume)
        faults.fail(fail_at=1, persistent=True, operations=OPERATIONS)

        assert version == self.decode(data, ROVolume)
        assert version.index == self.decode(data, RWVolume).index

    def test_versions_lie_in_lists_dicts_and_optionals(self, version: ROVolume) -> None:
        other = version.fork_sync("other").commit_sync(even_if_unchanged=True)
        cases: list[tuple[Any, Any]] = [
            ([version, other, version], list[ROVolume]),
            ([], list[ROVolume]),
            ({"a": version, "b": other}, dict[str, ROVolume]),
            ([{"a": [version]}], list[dict[str, list[ROVolume]]]),
            (version, Optional[ROVolume]),  # noqa: UP045
            (None, Optional[ROVolume]),  # noqa: UP045
        ]
        for value, declared in cases:
            data = self.encode(value, declared)
            assert value == self.decode(data, declared), declared
            assert data == self.encode(self.decode(data, declared), declared), declared

    # -- from task to task

    def test_what_a_task_returns_is_committed_and_the_next_one_has_that_version(self, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(make, tell, given=["data"]))

        [made] = commits
        assert {"class": "ROVolume", "name": "data", "index": made.index, "files": {"made": "data"}} == found

    def test_who_declares_a_writer_has_a_fork(self, version: ROVolume, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(tell_fork, given=[version]))
        assert ("RWVolume", version.name, version.index) == (found["class"], found["name"], found["index"])

        found = json.loads(self.run(add, tell, given=[version]))
        [made] = commits
        assert made.index == found["index"]
        assert (version.locator,) == made.log_sync(limit=1)[0].parents
        assert {"made": "data", "added": "data"} == found["files"]
        assert {"made": "data"} == told(version)["files"], "the version that was given is as it was"

    def test_a_fork_that_nobody_wrote_to_is_the_version_it_was_made_from(
        self, version: ROVolume, commits: list[ROVolume]
    ) -> None:
        for function in (pass_on, mount_and_pass_on):
            found = json.loads(self.run(function, pass_on, tell, given=[version]))
            assert version.index == found["index"], function.__name__
        assert [] == commits

    def test_a_chain_of_writers_is_a_chain_of_parents(self, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(make, add, pass_on, tell, given=["data"]))

        first, second = commits
        assert second.index == found["index"]
        assert (first.locator,) == second.log_sync(limit=1)[0].parents

    def test_two_outputs_of_one_handle_are_one_commit(self, commits: list[ROVolume]) -> None:
        one, other = json.loads(self.run(make_two, tell_two, given=["data"]))

        assert [one["index"]] == [made.index for made in commits]
        assert one == other

    def test_writers_in_a_list_are_committed_once_each(self, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(make_list, tell_list, given=["data"]))

        assert ["data-0", "data-1", "data-0", "data-2", "data-0"] == [each["name"] for each in found]
        assert len({each["index"] for each in found}) == 3 == len(commits)
        assert all({"made": each["name"]} == each["files"] for each in found)

    def test_writers_in_a_dict_are_committed(self, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(make_dict, tell_dict, given=["data"]))

        assert {"a": "data-a", "b": "data-b"} == {key: each["name"] for key, each in found.items()}
        assert {each["index"] for each in found.values()} == {made.index for made in commits}

    def test_an_optional_is_a_volume_or_nothing(self, commits: list[ROVolume]) -> None:
        found = json.loads(self.run(make_optional, tell_optional, given=["data"]))
        assert ("ROVolume", commits[0].index) == (found["class"], found["index"])

        assert json.loads(self.run(make_optional, tell_optional, given=[""])) is None
        assert 1 == len(commits)

    # -- again

    def test_the_same_task_on_the_same_version_gives_the_same_value(
        self, version: ROVolume, commits: list[ROVolume]
    ) -> None:
        attempts = [json.loads(self.run(pass_on, tell, given=[version])) for _ in range(2)]

        assert attempts[0] == attempts[1]
        assert [] == commits

    def test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it(
        self, version: ROVolume, commits: list[ROVolume]
    ) -> None:
        before = _published(version.store_url)
        with pytest.raises(Exception, match="always raises"):
            self.run(fail_after_writing, given=[version])

        assert before == _published(version.store_url)
        assert [] == commits
        kept = self.kept()
        assert kept.status_sync().changed, "what was written is kept"
        kept.abandon_sync()
        found = json.loads(self.run(add, tell, given=[version]))
        assert {"made": "data", "added": "data"} == found["files"]
        assert (version.locator,) == commits[0].log_sync(limit=1)[0].parents

    # -- when the store fails

    def test_a_commit_that_may_succeed_later_is_tried_again(self, version: ROVolume, faults: _Faults) -> None:
        self._sweep(version, faults, "transient")

    def test_a_commit_that_never_will_is_not(self, version: ROVolume, faults: _Faults) -> None:
        self._sweep(version, faults, "permanent")

    def _sweep(self, version: ROVolume, faults: _Faults, kind: Literal["transient", "permanent"]) -> None:
        """Fail the first write of the task's commit, then the second, ... until none is left to fail."""
        before = _published(version.store_url)
        fail_at = 0
        while True:
            fail_at += 1
            faults.fail(fail_at=fail_at, persistent=True, kind=kind, operations=_WRITES)
            error = self._raised_by_run(add, version)
            store = faults.store
            assert store is not None, "the task's commit opens a store"
            faults.heal()
            if not store.faults:
                break
            assert error is not None, f"call {fail_at} failed, and the task did not"
            assert (kind == "transient") == self.is_retried(error), f"{type(error).__name__}: {error}"
            assert "injected" in _whole(error), "the engine is told what the store said"
            assert before == _published(version.store_url), "nothing is half published"
            kept = self.kept()
            assert kept.status_sync().changed
            again = kept.commit_sync()
            assert {"made": "data", "added": "data"} == told(again)["files"], "the work was kept"
            kept.abandon_sync()
            held.pop().abandon_sync()
            before = _published(version.store_url)
        assert fail_at > 3, "a pack, a layer and a manifest, at least"

    def _raised_by_run(self, function: Callable[..., Any], version: ROVolume) -> Exception | None:
        # Another handle, which opens its store anew.
        fresh = ROVolume.model_validate_json(version.model_dump_json())
        try:
            self.run(function, given=[fresh])
        except Exception as error:
            return error
        return None

    # -- what people give

    def test_what_stands_for_a_version_is_taken(self, version: ROVolume) -> None:
        record = version.model_dump(mode="json")
        version.tag_sync("best")
        for given in (record, {"locator": version.locator}, json.dumps(record), "data", "data:best", version.locator):
            assert version == self.receive(given, ROVolume), given
            assert version.index == self.receive(given, RWVolume).index, given

    def test_what_is_no_volume_is_told_what_is_wrong(self, version: ROVolume) -> None:
        nothing = version.locator.replace(version.version, "0" * 64)
        cases: list[tuple[Any, str]] = [
            ({"colour": "blue"}, "locator"),
            ({}, "locator"),
            ({"locator": "s3://bucket/no-locator"}, "no-locator"),
            ({**version.model_dump(mode="json"), "used_bytes": "many"}, "used_bytes"),
            ("{not json", "Expecting property name"),
            ({"locator": nothing}, "0" * 64),
            (nothing, "0" * 64),
            ("nobody-made-this", "nobody-made-this"),
            ("data:nobody-tagged-this", "nobody-tagged-this"),
        ]
        for given, named in cases:
            for declared in (ROVolume, RWVolume):
                with pytest.raises(Exception) as caught:
                    self.receive(given, declared)
                text = _whole(caught.value)
                is_slip = isinstance(caught.value, _SLIPS) and not isinstance(caught.value, VolumeError)
                assert not is_slip, f"{given!r}: {type(caught.value).__name__}: {text}"
                assert len(text) > 20 and named in text, f"{given!r}: {text!r} does not say what is wrong"


def _whole(error: BaseException) -> str:
    """An error's text, and that of those which led to it: what a traceback shows."""
    seen: list[BaseException] = []
    above: BaseException | None = error
    while above is not None:
        assert not any(above is each for each in seen), f"what led to {type(above).__name__} is that error itself"
        seen.append(above)
        above = above.__cause__ or (None if above.__suppress_context__ else above.__context__)
    return "\n".join(text for each in seen for text in (str(each), *getattr(each, "__notes__", ())))


def _python(program: str, *arguments: str) -> str:
    """Run *program* in another process and return the last line that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]
