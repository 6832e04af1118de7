"""Compaction: when it is worth it, and that nobody can tell the merged layer from the stack."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from volume_core.domain.view import View
from volume_core.format.manifest import LayerRef
from volume_core.parts.compacting import LAYERS_MAX, merged_rows, needs_compaction
from volume_core.parts.indexes import build_index, open_index
from volume_core.testing.stacks import Stack, expected_tree, shown_tree, stacks


def refs(*rows: int) -> list[LayerRef]:
    return [LayerRef("a" * 64, 1, "b" * 64, 1, count) for count in rows]


@pytest.mark.parametrize(
    ("stack", "wanted"),
    [
        ([], False),
        ([100], False),
        ([0], False),
        ([100, 50], False),
        ([100, 51], True),
        ([100, 20, 20, 10], False),
        ([100, 20, 20, 11], True),
        ([0, 1], True),
        ([1000] + [1] * (LAYERS_MAX - 1), False),
        ([1000] + [1] * LAYERS_MAX, True),
        ([1000] + [0] * LAYERS_MAX, True),
    ],
)
def test_a_stack_is_compacted_when_it_is_high_or_its_newer_layers_weigh_much(stack, wanted):
    assert wanted == needs_compaction(refs(*stack))


@given(stacks())
@settings(max_examples=40)
def test_the_merged_layer_alone_shows_what_the_stack_shows(stack: Stack):
    view = stack.view()
    merged = View([open_index(build_index(merged_rows(view)))])

    assert expected_tree(stack) == shown_tree(merged)
    view.close()
    merged.close()


@given(stacks(layers_max=3))
@settings(max_examples=40)
def test_merging_what_was_merged_changes_nothing(stack: Stack):
    view = stack.view()
    once = build_index(merged_rows(view))
    merged = View([open_index(once)])

    assert once == build_index(merged_rows(merged))
    view.close()
    merged.close()


@given(stacks())
@settings(max_examples=40)
def test_nothing_hidden_is_kept(stack: Stack):
    view = stack.view()
    rows = list(merged_rows(view))
    view.close()

    assert len(stack.tree) == len(rows)
    assert sorted(rows, key=lambda row: row[:2]) == rows
