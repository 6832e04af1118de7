"""The directory store keeps the contract, survives kill -9, and says what a full disk needs."""

import pytest

from volume_core.storage.opening import open_store
from volume_core.testing.stores import RawDirectory, StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return open_store(str(tmp_path / "st ore"))

    @pytest.fixture
    def raw(self, tmp_path):
        return RawDirectory(tmp_path / "st ore")
