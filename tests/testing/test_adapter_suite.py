"""The suite for adapters: an engine that is a function call passes it, and one that breaks a promise does not."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import typing
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import TypeAdapter

from volume_core import ROVolume, RWVolume, StorageError, Volume
from volume_core.passing import hand_over
from volume_core.testing import tasks
from volume_core.testing.adapters import AdapterContract


class Calls(AdapterContract):
    """An engine that calls functions, and keeps JSON of what goes from one to the next."""

    loads = ("volume_core.passing",)
    engines = ("a_module_that_nobody_loads",)

    def run(self, *functions, given=()):
        kept = [self.encode(each, None) for each in given]
        returned = None
        for function in functions:
            hints = typing.get_type_hints(function)
            hints.pop("return")
            returned = function(*map(self.decode, kept, hints.values()))
            outputs = returned if isinstance(returned, tuple) else (returned,)
            with ThreadPoolExecutor(8) as threads:  # all at once, as engines do
                kept = [json.dumps(each).encode() for each in threads.map(self.plain, outputs)]
        return returned

    def encode(self, value, declared):
        return json.dumps(self.plain(value)).encode()

    def plain(self, value):
        if isinstance(value, Volume):
            return self.committed(value).model_dump(mode="json")
        if isinstance(value, list):
            return [self.plain(each) for each in value]
        if isinstance(value, dict):
            return {key: self.plain(each) for key, each in value.items()}
        return value

    def committed(self, volume):
        return hand_over(volume)

    def decode(self, data, declared):
        return TypeAdapter(declared).validate_python(json.loads(data))

    def receive(self, given, declared):
        return TypeAdapter(declared).validate_python(given)

    def is_retried(self, error):
        return isinstance(error, StorageError) and error.transient


class TestCalls(Calls):
    """A function call keeps every promise."""


_count = itertools.count()


class Counts(Calls):
    def encode(self, value, declared):
        return super().encode(value, declared) + b" " * next(_count)


class KnowsItsProcess(Calls):
    def encode(self, value, declared):
        return super().encode(value, declared) + b" " * (os.getpid() % 997)


class Forgets(Calls):
    def decode(self, data, declared):
        return TypeAdapter(declared).validate_python({"locator": json.loads(data)["index"], "message": ""})


class AlwaysWrites(Calls):
    def decode(self, data, declared):
        found = super().decode(data, declared)
        return found.fork_sync(found.name) if isinstance(found, ROVolume) else found


class NeverWrites(Calls):
    def decode(self, data, declared):
        return super().decode(data, ROVolume if declared is RWVolume else declared)


class AlwaysCommits(Calls):
    def committed(self, volume):
        return volume.commit_sync(even_if_unchanged=True) if isinstance(volume, RWVolume) else volume


class CommitsBeforeTheBody(Calls):
    def run(self, *functions, given=()):
        try:
            return super().run(*functions, given=given)
        except ValueError:
            tasks.held[-1].commit_sync("whatever is there")
            raise


class Abandons(Calls):
    def run(self, *functions, given=()):
        try:
            return super().run(*functions, given=given)
        except Exception:
            tasks.held[-1].abandon_sync()
            raise


class AlwaysRetries(Calls):
    def is_retried(self, error):
        return True


class NeverRetries(Calls):
    def is_retried(self, error):
        return False


class HidesTheCause(Calls):
    def run(self, *functions, given=()):
        try:
            return super().run(*functions, given=given)
        except StorageError as error:
            raise StorageError("something went wrong", transient=error.transient) from None


class IsItsOwnCause(Calls):
    def run(self, *functions, given=()):
        try:
            return super().run(*functions, given=given)
        except StorageError as error:
            raise error from error


class Slips(Calls):
    def receive(self, given, declared):
        return super().receive(given if isinstance(given, str) else {"locator": given["locator"]}, declared)


class LoadsItsEngine(Calls):
    engines = ("sqlite3",)


BROKEN = [
    (Counts, "test_one_version_is_the_same_bytes_however_it_was_come_by"),
    (KnowsItsProcess, "test_one_version_is_the_same_bytes_in_another_process"),
    (Forgets, "test_a_value_is_taken_out_where_the_store_does_not_answer"),
    (AlwaysWrites, "test_a_version_comes_out_as_it_went_in"),
    (AlwaysWrites, "test_what_a_task_returns_is_committed_and_the_next_one_has_that_version"),
    (NeverWrites, "test_who_declares_a_writer_has_a_fork"),
    (AlwaysCommits, "test_a_fork_that_nobody_wrote_to_is_the_version_it_was_made_from"),
    (AlwaysCommits, "test_the_same_task_on_the_same_version_gives_the_same_value"),
    (AlwaysCommits, "test_two_outputs_of_one_handle_are_one_commit"),
    (AlwaysCommits, "test_writers_in_a_list_are_committed_once_each"),
    (CommitsBeforeTheBody, "test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it"),
    (Abandons, "test_an_attempt_that_fails_publishes_nothing_and_the_next_one_does_not_see_it"),
    (Abandons, "test_a_commit_that_may_succeed_later_is_tried_again"),
    (AlwaysRetries, "test_a_commit_that_never_will_is_not"),
    (NeverRetries, "test_a_commit_that_may_succeed_later_is_tried_again"),
    (HidesTheCause, "test_a_commit_that_never_will_is_not"),
    (IsItsOwnCause, "test_a_commit_that_never_will_is_not"),
    (Slips, "test_what_is_no_volume_is_told_what_is_wrong"),
    (LoadsItsEngine, "test_loading_the_adapter_imports_no_engine"),
]


class TestTheSuiteNotices:
    """Each broken promise is seen by the test that is named after it."""

    _place = AdapterContract._place
    version, commits, faults = AdapterContract.version, AdapterContract.commits, AdapterContract.faults

    @pytest.mark.parametrize(("broken", "test"), BROKEN)
    def test_a_broken_promise(self, broken, test, request):
        method = getattr(broken(), test)
        fixtures = {name: request.getfixturevalue(name) for name in inspect.signature(method).parameters}
        with pytest.raises((AssertionError, pytest.fail.Exception, StorageError)):
            method(**fixtures)
