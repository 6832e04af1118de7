"""fsspec's own suites for file systems."""

from __future__ import annotations

import uuid

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.tests.abstract import AbstractFixtures
from fsspec.tests.abstract.copy import AbstractCopyTests
from fsspec.tests.abstract.get import AbstractGetTests
from fsspec.tests.abstract.open import AbstractOpenTests
from fsspec.tests.abstract.pipe import AbstractPipeTests
from fsspec.tests.abstract.put import AbstractPutTests

from volume_core.fs import VolumeFileSystem


class Fixtures(AbstractFixtures):
    @pytest.fixture
    def local_fs(self) -> LocalFileSystem:
        return LocalFileSystem(auto_mkdir=True)

    @pytest.fixture
    def fs(self) -> VolumeFileSystem:
        return VolumeFileSystem(bucket=f"memory://{uuid.uuid4().hex}")

    @pytest.fixture
    def fs_path(self, fs) -> str:
        fs.mkdir("suite")
        return "suite/work"


class TestCopy(Fixtures, AbstractCopyTests):
    pass


class TestGet(Fixtures, AbstractGetTests):
    pass


class TestPut(Fixtures, AbstractPutTests):
    pass


class TestOpen(Fixtures, AbstractOpenTests):
    pass


class TestPipe(Fixtures, AbstractPipeTests):
    pass
