"""What a handle left behind is taken down once, by the process that made it, whatever happens."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time

import pytest

from volume_core.facade.releasing import release_with, settle


class Owner:
    """Something that can be collected."""


class Thing:
    """Counts its releases."""

    def __init__(self) -> None:
        self.released = 0
        self.happened = threading.Event()
        self.thread = ""

    def release(self) -> None:
        self.released += 1
        self.thread = threading.current_thread().name
        self.happened.set()


def test_a_collected_owner_releases_in_the_janitors_thread():
    thing, owner = Thing(), Owner()
    release_with(owner, thing)
    assert not thing.happened.wait(0.02)
    del owner
    gc.collect()

    assert thing.happened.wait(10)
    assert (1, "volume-janitor") == (thing.released, thing.thread)


def test_an_owner_in_a_cycle_is_collected_too():
    thing, owner = Thing(), Owner()
    owner.itself = owner
    release_with(owner, thing)
    del owner
    gc.collect()

    assert thing.happened.wait(10)


def test_what_was_called_off_is_never_released():
    thing, other, owner = Thing(), Thing(), Owner()
    call_off = release_with(owner, thing)
    release_with(owner, other)
    call_off()
    del owner
    gc.collect()

    assert other.happened.wait(10)
    assert 0 == thing.released


@pytest.mark.loud
def test_a_release_that_fails_is_logged_and_stops_no_other(caplog):
    class Broken(Thing):
        def release(self) -> None:
            raise OSError("busy")

        def __repr__(self) -> str:
            return "the broken one"

    thing, owner = Thing(), Owner()
    release_with(owner, thing)
    release_with(owner, Broken())  # the newest goes first
    del owner
    gc.collect()

    assert thing.happened.wait(10)
    assert "could not take down the broken one" in caplog.text


SCRIPT = """
import os, sys
from volume_core.facade.releasing import release_with, settle
class Owner: pass
class Thing:
    def __init__(self, name): self.name = name
    def release(self): print(self.name, os.getpid() == parent, flush=True)
parent = os.getpid()
owner = Owner()
release_with(owner, Thing("first"))
release_with(owner, Thing("second"))
if os.fork() == 0:
    del owner
    inner = Owner()
    parent = os.getpid()
    release_with(inner, Thing("child's own"))
    sys.exit()
os.wait()
print("parent ends", flush=True)
"""


def test_at_the_end_the_newest_goes_first_and_a_forked_child_releases_only_its_own():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)

    assert ["child's own True", "parent ends", "second True", "first True"] == run.stdout.splitlines()
    assert "" == run.stderr


def test_a_child_that_forgets_the_owner_does_not_wake_a_thread_it_has_not_got():
    thing, owner = Thing(), Owner()
    release_with(owner, thing)
    child = os.fork()
    if child == 0:
        del owner
        gc.collect()
        os._exit(3 if thing.released else 0)
    deadline = time.monotonic() + 10
    while (found := os.waitpid(child, os.WNOHANG)) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.005)

    assert 0 == os.waitstatus_to_exitcode(found[1])
    assert 0 == thing.released


def test_to_settle_is_to_wait_for_what_was_collected():
    class Slow(Thing):
        def release(self) -> None:
            time.sleep(0.2)
            super().release()

    owner, slow = Owner(), Slow()
    release_with(owner, slow)
    del owner
    gc.collect()
    settle()
    assert 1 == slow.released
