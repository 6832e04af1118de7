"""Entries: paths are taken apart and put together, kinds keep their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volume_core.format.entries import WHITEOUT, Codec, Entry, Kind, join, split

NAME = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(st.lists(NAME, max_size=6).map(b"/".join), NAME)
def test_a_path_is_its_directory_and_its_name(directory, name):
    path = join(directory, name)

    assert (directory, name) == split(path)
    assert path == join(*split(path))


def test_the_root_has_neither_directory_nor_name():
    assert (b"", b"") == split(b"")
    assert b"a" == join(b"", b"a")
    assert (b"", b"a") == split(b"a")


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("FILE", 1),
        ("DIRECTORY", 2),
        ("OPAQUE", 3),
        ("SYMLINK", 4),
        ("FIFO", 5),
        ("CHAR", 6),
        ("BLOCK", 7),
        ("WHITEOUT", 8),
    ],
)
def test_kinds_keep_the_numbers_that_are_on_disk(kind, number):
    assert number == Kind[kind]


def test_codecs_keep_the_numbers_that_are_on_disk():
    assert {"NONE": 0, "ZSTD": 1} == {codec.name: int(codec) for codec in Codec}


def test_only_directories_have_paths_below_them():
    assert {Kind.DIRECTORY, Kind.OPAQUE} == {kind for kind in Kind if Entry(kind).is_directory}
    assert Entry(Kind.WHITEOUT) == WHITEOUT
