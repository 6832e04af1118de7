"""What the tests of the stores share."""

import uuid

import pytest

from volume_core.storage.memory import MemoryStore


@pytest.fixture
def memory():
    """A memory store of a name that no other test uses."""
    store = MemoryStore(uuid.uuid4().hex)
    yield store
    store.clear()
