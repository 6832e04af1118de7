"""Programs that are sent SIGTERM within a block: each says what it has come to, a line each, on stdout.

python terminated.py PROGRAM DRIVER ON_TERMINATE
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time

import volume_core.facade.blocks
import volume_core.facade.terminating
import volume_core.facade.writers
from volume_core import StorageError, Volume, listen_for_sigterm

PROGRAM, DRIVER, ON_TERMINATE = sys.argv[1:]
OPTIONS = {"driver": DRIVER, "message": "of the block"} | (
    {"on_terminate": ON_TERMINATE} if ON_TERMINATE != "nothing" else {}
)
logging.basicConfig(level=logging.INFO, stream=sys.stderr)


def say(*words):
    """In one system call: handlers say something too, which `print` refuses in the middle of a `print`."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def block():
    return Volume.new("data").mounted_sync(**OPTIONS)


def write(path):
    (path / "a").write_text("1")
    say("path", path)
    say("ready")


def sleep():
    while True:
        time.sleep(60)


def sync():
    with block() as path:
        write(path)
        sleep()


def writing():
    """A body that never holds still."""
    with block() as path:
        write(path)
        while True:
            with open(path / "log", "ab") as file:
                file.write(b"x")


def awaited():
    async def main():
        async with Volume.new("data").mounted(**OPTIONS) as path:
            write(path)
            await asyncio.sleep(600)

    asyncio.run(main())


def loop_handler():
    """An engine that cancels its task by its loop's own handler."""

    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
        volume = Volume.new("data")
        try:
            async with volume.mounted(**OPTIONS) as path:
                write(path)
                await asyncio.sleep(600)
        except asyncio.CancelledError as error:
            say("cancelled", *getattr(error, "__notes__", []))
            say("committed", volume.committed is not None)

    asyncio.run(main())


def worker():
    listen_for_sigterm()
    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    thread.join()


def deaf_worker():
    thread = threading.Thread(target=sync, daemon=True)
    thread.start()
    thread.join()


def previous_raises():
    """An engine whose handler raises in the body."""

    class Terminated(BaseException):
        pass

    def handler(signum, frame):
        say("previous")
        raise Terminated

    signal.signal(signal.SIGTERM, handler)
    volume = Volume.new("data")
    try:
        with volume.mounted_sync(**OPTIONS) as path:
            write(path)
            sleep()
    except Terminated as error:
        say("notes", *getattr(error, "__notes__", []))
        say("committed", volume.committed is not None)
    say("handler is back", signal.getsignal(signal.SIGTERM) is handler)


def previous_returns():
    """An engine that only notes the signal, so that the body goes on."""
    happened = []
    signal.signal(signal.SIGTERM, lambda *_: happened.append(1))
    volume = Volume.new("data")
    with volume.mounted_sync(**OPTIONS) as path:
        write(path)
        while not happened:
            time.sleep(0.01)
        say("at", volume.index is not None)
        (path / "b").write_text("2")
    say("calls", len(happened))
    say("committed", len(volume.committed.log_sync()))


def previous_passes_on():
    """A handler that was put over ours and calls what it found."""
    with block() as path:
        found = signal.getsignal(signal.SIGTERM)

        def handler(signum, frame):
            say("over")
            found(signum, frame)

        signal.signal(signal.SIGTERM, handler)
        with Volume.new("other").mounted_sync(**OPTIONS) as other:
            (other / "b").write_text("2")
            write(path)
            sleep()


def committing():
    """A body that is in the middle of a commit when the signal comes, and for a while after."""
    commit = volume_core.facade.writers.WorkTree.commit
    calls = []

    def slow(tree, terms):
        calls.append(1)
        if len(calls) == 1:
            say("ready")
            sys.stdin.readline()
        outcome = commit(tree, terms)
        say("changed", outcome.changed)
        return outcome

    volume_core.facade.writers.WorkTree.commit = slow
    with block() as path:
        (path / "a").write_text("1")
        say("path", path)


def prodded_late():
    """A saver that is held up between its look at whose the signal is and its own signal to the main thread."""
    saved, looked, tried = threading.Event(), threading.Event(), threading.Event()
    kill = signal.pthread_kill

    def late(thread, signum):
        looked.set()
        tried.wait(2)  # the handler that is there before the block: until it is back, if the saver lets that happen
        kill(thread, signum)

    def save(block, let_main_go_on):
        let_main_go_on()
        saved.wait()

    def handler(signum, frame):
        say("previous")

    signal.pthread_kill = late
    volume_core.facade.blocks.Block.save = save
    volume_core.facade.blocks.Block.free = lambda block: None
    signal.signal(signal.SIGTERM, handler)
    with block() as path:
        write(path)
        while volume_core.facade.terminating._listener._phase.name != "SAVING":
            time.sleep(0.01)
        saved.set()
        looked.wait()
        os.kill(os.getpid(), signal.SIGTERM)
    say("handler is back", signal.getsignal(signal.SIGTERM) is handler)
    tried.set()
    for thread in threading.enumerate():
        if thread.name == "volume-saver":
            thread.join(1)


def without_a_store():
    def gone(tree, terms):
        raise StorageError("the store is gone")

    volume_core.facade.writers.WorkTree.commit = gone
    sync()


def holding_a_lock():
    """A main thread that the signal finds with a lock which the commit needs."""
    volume_core.facade.terminating._PATIENCE_S = 0.2
    commit, lock = volume_core.facade.writers.WorkTree.commit, threading.Lock()

    def needs_it(tree, terms):
        with lock:
            return commit(tree, terms)

    volume_core.facade.writers.WorkTree.commit = needs_it
    with block() as path, lock:
        write(path)
        sys.stdin.readline()
        lock.release()
        sleep()


def forked():
    """A child of a process that is within a block: the signal is not for the block."""
    with block() as path:
        say("path", path)
        if (child := os.fork()) == 0:
            say("ready")
            sleep()
        say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        (path / "a").write_text("1")


def after():
    """Nothing is left of a block that has ended."""
    with block() as path:
        (path / "a").write_text("1")
    say("handler is back", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
    say("ready")
    sleep()


globals()[PROGRAM]()
