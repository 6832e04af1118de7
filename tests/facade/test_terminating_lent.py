"""SIGTERM where an engine puts a handler of its own there, and looks whether that very one is there."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from volume_core import ROVolume, Volume

PROGRAM = """
import os, signal, sys, threading, time
from volume_core import Volume
from volume_core.facade.terminating import saves_first

class Terminated(BaseException): ...

def engines(signum, frame):
    raise Terminated

lent = saves_first(engines)
print(saves_first(lent) is lent)

def is_there():
    return signal.getsignal(signal.SIGTERM) is lent

def block(name):
    with Volume.new(name).mounted_sync(driver="copy", on_terminate="commit") as path:
        (path / "a").write_text("1")
        began.set()
        if name == "worker":
            time.sleep(1.0)
            return
        print(is_there())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)

began = threading.Event()
before = signal.signal(signal.SIGTERM, lent)
with Volume.new("early").mounted_sync(driver="copy", on_terminate="commit") as path:
    print(is_there())
print(is_there())
worker = threading.Thread(target=block, args=("worker",))
worker.start()
began.wait()
try:
    if sys.argv[1] == "main":
        block("main")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
except Terminated:
    print("terminated", is_there())
if sys.argv[1] == "child":
    if (child := os.fork()) == 0:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        except Terminated:
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(sorted(volume.name for volume in Volume.list_sync()))
signal.signal(signal.SIGTERM, before)
worker.join()
"""


def run(*arguments: str) -> list[str]:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def newest(name: str) -> Any:
    found = Volume.from_name_sync(name).committed
    assert isinstance(found, ROVolume)
    return found


def test_it_stays_there_and_saves_the_blocks_of_all_threads_before_the_engine_hears():
    said = run("main")

    assert [*["True"] * 4, "terminated True", "['early', 'main', 'worker']"] == said
    assert "a" == newest("worker").listdir_sync()[0].name


@pytest.mark.parametrize("where", ["none", "child"])
def test_without_blocks_of_its_own_a_process_hears_the_engines_alone(where):
    said = run(where)

    assert [*["True"] * 3, "terminated True"] == said[:4]
    assert (["7"] if where == "child" else []) == said[4:-1]
