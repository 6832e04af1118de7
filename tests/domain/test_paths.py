"""Paths as a caller writes them: links followed within the tree, patterns and what they match."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from volume_core.domain.paths import Pattern, find, parts_of
from volume_core.errors import VolumeError
from volume_core.format.entries import join


class Spot(NamedTuple):
    path: bytes
    is_directory: bool
    link_target: bytes | None = None

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]


class Tree:
    """A tree of paths: one that ends in "/" is a directory, "a -> b" a symlink."""

    def __init__(self, *paths: bytes) -> None:
        self.root = Spot(b"", True)
        self._spots = {}
        for each in paths:
            path, _, target = each.partition(b" -> ")
            self._spots[path.rstrip(b"/")] = Spot(path.rstrip(b"/"), path.endswith(b"/"), target or None)

    def lookup(self, directory, name):
        return self._spots.get(join(directory.path, name))

    def listing(self, directory):
        return sorted(spot for path, spot in self._spots.items() if path.rpartition(b"/")[0] == directory.path)


TREE = Tree(
    b"a/", b"a/x.txt", b"a/.dot", b"a/b/", b"a/b/x.txt", b"a/b/c/", b"a/b/c/y.txt", b"x.txt", b"link -> a/b",
    b"absolute -> /a", b"up -> a/b/../x.txt", b"a/b/out -> ../../../../x.txt", b"circle -> circle", b"dangling -> gone",
    b"\xff\n.bin", b"br[1].txt",
)  # fmt: skip


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"", b""),
        (b"/", b""),
        (b"//a//b/./x.txt/", b"a/b/x.txt"),
        (b"link/x.txt", b"a/b/x.txt"),
        (b"absolute/b", b"a/b"),
        (b"up", b"a/x.txt"),
        (b"a/b/out", b"x.txt"),
        (b"link/..", b"a"),
        (b"../../a", b"a"),
        (b"dangling", None),
        (b"x.txt/y", None),
        (b"nothing", None),
    ],
)
def test_find_follows_links_within_the_tree(path, found):
    spot = find(TREE, path)

    assert found == (None if spot is None else spot.path)


def test_find_may_stop_at_a_link_itself():
    assert b"link" == find(TREE, b"link", follow=False).path
    assert b"a/b/x.txt" == find(TREE, b"link/x.txt", follow=False).path
    assert b"circle" == find(TREE, b"circle", follow=False).path


def test_a_circle_is_an_error_and_not_for_ever():
    with pytest.raises(VolumeError, match="/circle: too many levels"):
        find(TREE, b"circle")


def matches(pattern: bytes) -> list[bytes]:
    return [path for path, _ in Pattern.parse(pattern).matches(TREE)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (b"*.txt", [b"br[1].txt", b"x.txt"]),
        (b"a/*", [b"a/.dot", b"a/b", b"a/x.txt"]),
        (b"/a/?.txt", [b"a/x.txt"]),
        (b"*/b/[x-z].txt", [b"a/b/x.txt", b"absolute/b/x.txt"]),
        (b"**/x.txt", [b"x.txt", b"a/x.txt", b"a/b/x.txt"]),
        (b"a/**", [b"a/.dot", b"a/b", b"a/b/c", b"a/b/c/y.txt", b"a/b/out", b"a/b/x.txt", b"a/x.txt"]),
        (b"**/b/**/*.txt", [b"a/b/x.txt", b"a/b/c/y.txt"]),
        (b"**/**/y.txt", [b"a/b/c/y.txt"]),
        (b"link/*.txt", [b"link/x.txt"]),
        (b"l*/x.txt", [b"link/x.txt"]),
        (b"\xff*", [b"\xff\n.bin"]),
        (b"br[[]1].txt", [b"br[1].txt"]),
        (b"x.txt/*", []),
        (b"gone/*", []),
        (b"*/gone", []),
    ],
)
def test_a_pattern_matches_what_it_says(pattern, expected):
    assert expected == matches(pattern)


def test_a_path_may_match_in_two_ways_and_is_given_once():
    found = matches(b"**/b/**")

    assert sorted(set(found)) == sorted(found)


def test_a_plain_path_is_no_pattern():
    assert Pattern.parse(b"a/b.txt") is None
    assert [b"a", b".."] == parts_of(b"/a/./..//")
