"""A directory listed piece by piece is the directory listed at once."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings

from volume_core.domain.view import View
from volume_core.testing.stacks import Stack, stacks


@given(stacks())
@settings(max_examples=60)
def test_from_any_child_on_the_rest_of_the_listing_comes(stack: Stack):
    view = stack.view()
    for node in list(view.walk()):
        if node.is_directory:
            listing = view.listing(node)

            assert listing == list(view.children(node))
            for place, child in enumerate(listing):
                assert listing[place + 1 :] == list(view.children(node, view.position(child)))
    view.close()


@given(stacks())
@settings(max_examples=40)
def test_positions_are_the_same_in_every_view_and_never_twice_in_a_directory(stack: Stack):
    view, other = stack.view(), stack.view()
    for node in list(view.walk()):
        if node.is_directory:
            positions = [view.position(child) for child in view.listing(node)]

            assert positions == [other.position(child) for child in other.listing(node)]
            assert len(positions) == len(set(positions))
            assert all(position > 2 for position in positions)
    view.close()
    other.close()


@given(stacks())
@settings(max_examples=20)
def test_an_iteration_may_be_left_half_way(stack: Stack):
    view = stack.view()
    left = [itertools.islice(view.children(node), 1) for node in view.walk() if node.is_directory]
    found = [next(each, None) for each in left]

    assert len(left) == len(found)
    view.close()


@pytest.mark.parametrize("position", [1, 1 << 40, 99 << 40, -1])
def test_a_position_that_is_nowhere_is_a_key_error(position):
    view = View(())
    with pytest.raises(KeyError):
        view.children(view.root, position)
