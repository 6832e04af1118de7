"""The view of a stack, against a plain mapping of paths that the layers' rows were applied to."""

from __future__ import annotations

import itertools
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core.domain import view as view_module
from volume_core.domain.view import ROOT_NUMBER, View
from volume_core.format.digests import digest
from volume_core.format.entries import WHITEOUT, ChunkRef, Entry, Extent, Kind, join, split
from volume_core.testing.stacks import Stack, expected_tree, reader_of, shown_tree, stacks, universe

DIRECTORY = Entry(Kind.DIRECTORY, 0o755)
OPAQUE = Entry(Kind.OPAQUE, 0o700)
UNIVERSE = tuple(universe())


def file(text: bytes, **attributes) -> Entry:
    chunk = ChunkRef(digest(text), digest(b"pack of " + text), 32, len(text), len(text))
    return Entry(Kind.FILE, 0o644, size=len(text), content=(Extent(len(text), chunk),), **attributes)


def view_of(*layers: dict[bytes, Entry]) -> View:
    """A view of layers that are given as path -> entry."""
    return View([reader_of(sorted((*split(path), entry) for path, entry in rows.items())) for rows in layers])


def paths(view: View) -> list[bytes]:
    found = [node.path for node in view.walk()]
    view.close()
    return found


# Random stacks.


@given(stacks())
def test_a_view_shows_the_plain_tree(stack: Stack):
    view = stack.view()

    assert expected_tree(stack) == shown_tree(view)
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_neighbours_together_are_what_each_is_alone(stack: Stack):
    view = stack.view()
    nodes = [node for node in view.walk() if not node.is_directory]

    assert [view.entry(node) for node in nodes] == view.entries(nodes)
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_every_path_is_found_where_it_is_and_only_there(stack: Stack):
    view = stack.view()
    for path in UNIVERSE[:155] + tuple(stack.tree):
        node = view.resolve(path)

        assert (path in stack.tree) == (node is not None)
        if node is not None:
            assert path == node.path
            assert stack.tree[path].entry.is_directory == node.is_directory
            assert split(path)[0] == view.parent(node).path
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_listings_and_lookups_agree(stack: Stack):
    view = stack.view()
    for node in view.walk():
        if node.is_directory:
            listed = view.listing(node)

            assert stack.children(node.path) == [child.path for child in listed]
            assert listed == [view.lookup(node, child.name) for child in listed]
            assert listed == list(view.children(node))
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_a_directory_can_be_listed_on_from_each_of_its_children(stack: Stack):
    view, other = stack.view(), stack.view()
    for node in view.walk():
        if node.is_directory:
            listed = view.listing(node)
            for index, child in enumerate(listed):
                assert listed[index + 1 :] == list(other.children(node, view.position(child)))
    view.close()
    other.close()


@given(stacks())
@settings(max_examples=40)
def test_a_number_leads_back_to_its_inode_in_any_view(stack: Stack):
    view, other = stack.view(), stack.view()
    inodes = {}
    for node in view.walk():
        inodes.setdefault(node.number, set()).add(node.path)
        found = other.node(node.number)

        assert (node.number, node.row.content, node.alive) == (found.number, found.row.content, found.alive)
        assert found.path in stack.names_of(node.path)
    view.close()
    other.close()

    assert {frozenset(stack.names_of(path)) for path in stack.tree} == {frozenset(names) for names in inodes.values()}


@given(stacks())
@settings(max_examples=40)
def test_links_are_counted_as_far_as_they_are_shown(stack: Stack):
    view = stack.view()
    for node in view.walk():
        names = stack.names_of(node.path)

        assert names == view.links(node)
        assert len(names) == view.link_count(node)
        assert (node.number if len(names) > 1 else 0) == view.entry(node).hardlink
    view.close()


@given(stacks(), st.sampled_from(UNIVERSE))
@settings(max_examples=40)
def test_a_walk_from_a_path_is_the_part_of_the_walk_below_it(stack: Stack, start: bytes):
    view = stack.view()
    below = [node for node in view.walk() if node.path == start or node.path.startswith(start + b"/")]

    assert below == list(view.walk(start))
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_a_walk_goes_parents_first_and_by_name(stack: Stack):
    view = stack.view()
    found = [node.path for node in view.walk()]
    view.close()

    assert sorted(found, key=lambda path: path.split(b"/") if path else []) == found


@given(stacks())
@settings(max_examples=40)
def test_extents_and_chunks_are_those_of_the_newest_layer(stack: Stack):
    view = stack.view()
    for node in view.walk():
        wanted = stack.tree[node.path].entry.content

        assert wanted == view.extents(node)
        for extent in wanted:
            if extent.chunk is not None:
                assert extent.chunk == view.chunk(extent.chunk.digest)
    assert view.chunk(digest(b"nobody's")) is None
    view.close()


@given(stacks(), st.integers(0, 1 << 64))
@settings(max_examples=40)
def test_a_number_that_nothing_has_is_a_key_error(stack: Stack, number: int):
    view = stack.view()
    numbers = {node.number for node in view.walk()}
    for other in (number, 0, 2, max(numbers) + 1, (len(stack.layers) + 1) << 40 | 1):
        if other not in numbers:
            with pytest.raises(KeyError):
                view.node(other)
    view.close()


@given(stacks())
@settings(max_examples=30)
def test_a_view_that_remembers_nothing_shows_the_same(stack: Stack):
    before = view_module._DIRECTORIES_REMEMBERED
    view_module._DIRECTORIES_REMEMBERED = 1
    try:
        view = stack.view()

        assert expected_tree(stack) == shown_tree(view)
        view.close()
    finally:
        view_module._DIRECTORIES_REMEMBERED = before


# What each rule says, one by one.


def test_no_layers_are_an_empty_tree():
    view = View()

    assert [ROOT_NUMBER] == [node.number for node in view.walk()]
    assert Entry(Kind.DIRECTORY, 0o755) == view.entry(view.root)
    assert view.root == view.parent(view.root) == view.node(ROOT_NUMBER)
    assert () == view.extents(view.root)
    assert view.chunk(digest(b"")) is None
    assert not view.has_xattrs


def test_a_stack_that_never_changed_the_root_has_a_default_one():
    view = view_of({b"a": file(b"x")})

    assert Entry(Kind.DIRECTORY, 0o755) == view.entry(view.root)
    view.close()


def test_the_newest_root_row_is_shown_and_an_opaque_one_hides_all_older():
    view = view_of({b"": DIRECTORY, b"a": DIRECTORY}, {b"": OPAQUE, b"b": DIRECTORY}, {b"": DIRECTORY, b"c": DIRECTORY})

    assert 0o755 == view.entry(view.root).mode
    assert [b"", b"b", b"c"] == paths(view)


def test_a_whiteout_hides_all_below_and_a_later_directory_brings_nothing_back():
    below = {b"d": DIRECTORY, b"d/e": DIRECTORY, b"d/e/f": file(b"deep")}

    assert [b""] == paths(view_of(below, {b"d": WHITEOUT}))
    assert [b"", b"d"] == paths(view_of(below, {b"d": WHITEOUT}, {b"d": DIRECTORY}))
    assert [b"", b"d", b"d/e"] == paths(view_of(below, {b"d": WHITEOUT}, {b"d": DIRECTORY, b"d/e": DIRECTORY}))


def test_a_file_for_a_directory_and_a_directory_again():
    below = {b"d": DIRECTORY, b"d/old": file(b"old")}
    again = {b"d": DIRECTORY, b"d/new": file(b"new")}

    assert [b"", b"d"] == paths(view_of(below, {b"d": file(b"flat")}))
    assert [b"", b"d", b"d/new"] == paths(view_of(below, {b"d": file(b"flat")}, again))


def test_an_opaque_directory_cuts_off_older_layers_but_not_newer_ones():
    below = {b"d": DIRECTORY, b"d/old": file(b"old")}
    opaque = {b"d": OPAQUE, b"d/new": file(b"new")}

    view = view_of(below, opaque, {b"d/newer": file(b"newer")})

    assert Kind.DIRECTORY is view.entry(view.resolve(b"d")).kind
    assert [b"", b"d", b"d/new", b"d/newer"] == paths(view)


def test_a_deep_row_needs_no_rows_above_it_in_its_layer():
    deep = b"/".join([b"d"] * 300)
    below = {b"/".join([b"d"] * depth): DIRECTORY for depth in range(1, 301)}

    view = view_of(below, {}, {join(deep, b"f"): file(b"found")})
    node = view.resolve(join(deep, b"f"))

    assert 2 == node.layer
    assert node == view.node(node.number)
    assert deep == view.parent(node).path
    view.close()


def test_nothing_lies_below_a_file():
    view = view_of({b"f": file(b"x")})

    assert view.resolve(b"f/g") is None
    assert view.resolve(b"missing/g") is None
    assert view.resolve(b"f/") is None
    view.close()


def test_without_links_each_name_is_a_file_by_itself_and_is_found_by_its_number():
    group = {b"a": file(b"one", hardlink=7), b"d/b": file(b"one", hardlink=7)}
    layer = {b"": DIRECTORY, b"d": DIRECTORY, **group}
    view = View(view_of(layer).layers, links=False)
    nodes = [view.resolve(path) for path in group]

    assert 2 == len({node.number for node in nodes})
    assert nodes == [view.node(node.number) for node in nodes]
    assert [[b"a"], [b"d/b"]] == [view.links(node) for node in nodes]
    assert [(0, 1), (0, 1)] == [(view.entry(node).hardlink, view.link_count(node)) for node in nodes]
    view.close()


def test_a_hidden_name_of_a_link_group_is_not_counted():
    group = {b"a": file(b"one", hardlink=7), b"b": file(b"one", hardlink=7), b"c": file(b"one", hardlink=7)}

    view = view_of(group, {b"a": WHITEOUT, b"b": file(b"other")})
    node = view.resolve(b"c")

    assert [b"c"] == view.links(node)
    assert 0 == view.entry(node).hardlink
    assert b"c" == view.node(node.number).path
    view.close()


def test_a_number_whose_row_is_hidden_is_a_key_error():
    old = view_of({b"a": file(b"one")})
    number = old.resolve(b"a").number
    old.close()

    for newer in ({b"a": WHITEOUT}, {b"a": file(b"two")}):
        view = view_of({b"a": file(b"one")}, newer)
        with pytest.raises(KeyError):
            view.node(number)
        view.close()


def test_the_place_of_no_child_is_a_key_error():
    view = view_of({b"a": file(b"one")})
    for position in (1, 1 << 40 | 99, 9 << 40 | 1):
        with pytest.raises(KeyError):
            list(view.children(view.root, position))
    view.close()


def test_a_view_knows_whether_anything_has_xattrs():
    plain = view_of({b"a": file(b"x")}, {b"b": file(b"y")})
    marked = view_of({b"a": file(b"x")}, {b"b": file(b"y", xattrs=((b"user.k", b"v"),))})

    assert (False, True) == (plain.has_xattrs, marked.has_xattrs)
    plain.close()
    marked.close()


def test_children_of_many_layers_come_without_a_listing_in_memory():
    names = [b"%05d" % number for number in range(3000)]
    layers = [{name: file(b"%d" % layer) for name in names[layer::3]} for layer in range(3)]

    view = view_of(*layers)
    first = list(itertools.islice(view.children(view.root), 10))
    rest = list(view.children(view.root, view.position(first[-1])))

    assert names == [node.name for node in first + rest]
    view.close()


def test_closing_a_view_closes_its_layers():
    view = view_of({b"a": file(b"x")})
    view.close()

    with pytest.raises(sqlite3.ProgrammingError):
        view.resolve(b"a")


@given(stacks(), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_the_extents_of_many_nodes_are_those_of_each(stack: Stack, order):
    view = stack.view()
    nodes = list(view.walk())
    order.shuffle(nodes)

    assert list(map(view.extents, nodes)) == view.extents_of(nodes)
    assert len(stack.layers) == len(view.layers)
    view.close()


@given(stacks(), st.booleans())
@settings(max_examples=40)
def test_whole_files_are_the_children_that_are_one_whole_chunk(stack: Stack, links: bool):
    view = View(stack.view().layers, links=links)
    for node in view.walk():
        if node.is_directory:
            files = [child for child in view.listing(node) if child.row.kind == Kind.FILE]
            wanted = [
                (child.number, child.name, view.extents(child)) for child in files if isinstance(child.row.content, int)
            ]

            assert wanted == list(view.whole_files(node))
            for index, (_, name, _) in enumerate(wanted):
                assert wanted[index + 1 :] == list(view.whole_files(node, name))
    view.close()


def test_whole_files_leave_out_what_is_more_or_less_than_one_chunk():
    whole = file(b"whole")
    (extent,) = whole.content
    part = whole._replace(size=3, content=(extent._replace(length=3),))
    hole = Entry(Kind.FILE, 0o644, size=9, content=(Extent(9, None),))
    view = view_of({b"": DIRECTORY, b"a": part, b"b": whole, b"c": Entry(Kind.FILE, 0o644), b"d": hole})

    assert [(b"b", whole.content)] == [(name, extents) for _, name, extents in view.whole_files(view.root)]
    view.close()
