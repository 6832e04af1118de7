"""The memory store keeps the contract, and is one per name and process."""

import os
import threading

import pytest

from volume_core.storage.memory import MemoryStore, _Object
from volume_core.storage.opening import open_store
from volume_core.testing.faulty import FaultyStore
from volume_core.testing.slow import SlowStore
from volume_core.testing.stores import StoreContract
from volume_core.testing.strict import StrictStore


class RawMemory(dict):
    """The objects of a memory store as plain bytes."""

    def __init__(self, space):
        self.space = space

    def __getitem__(self, name):
        return self.space.objects[name].data

    def __setitem__(self, name, data):
        self.space.objects[name] = _Object(data, 1_700_000_000_000_000_000)

    def __contains__(self, name):
        return name in self.space.objects

    def __iter__(self):
        return iter(self.space.objects)


@pytest.fixture
def raw(memory):
    return RawMemory(memory._space)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self, memory):
        return open_store(memory.url)


class TestStrictStore(StoreContract):
    listed = 50

    @pytest.fixture
    def store(self, memory):
        return StrictStore(memory)


class TestFaultyStoreWithoutAFault(StoreContract):
    listed = 50

    @pytest.fixture
    def store(self, memory):
        return FaultyStore(memory)


class TestSlowStore(StoreContract):
    listed = 50

    @pytest.fixture
    def store(self, memory):
        return SlowStore(memory, latency_s=0.0005, bytes_per_s=1e9)


def test_two_stores_of_one_name_are_one(memory):
    other = MemoryStore(memory.url.removeprefix("memory://"))
    other.put("a", b"x")

    assert b"x" == memory.get("a")


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_a_thread_holds_the_lock_can_use_the_store(memory):
    memory.put("a", b"x")
    held, release = threading.Event(), threading.Event()

    def hold():
        with memory._space.lock:
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        memory.put("a", b"y")
        os._exit(0 if memory.get("a") == b"y" else 1)
    release.set()
    thread.join()
    _, status = os.waitpid(child, 0)

    assert 0 == status
    assert b"x" == memory.get("a")
