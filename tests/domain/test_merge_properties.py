"""Merges of random trees, against an oracle that knows only whole trees."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merging_oracle import Oracle, Side

from volume_core.domain.diff import path_changes, rows_between
from volume_core.domain.merge import Merge, Policy, merge
from volume_core.domain.totals import totals_with
from volume_core.domain.view import View
from volume_core.format.entries import Kind, join
from volume_core.testing.stacks import Fork, Stack, expected_tree, forks, reader_of, shown_tree


def totals_of(tree) -> tuple[int, int]:
    """(used_bytes, inode_count) of what shown_tree returns."""
    inodes = {names[0] if names else path: entry for path, (entry, names) in tree.items()}
    return sum(entry.size for entry in inodes.values()), len(inodes)


def entries(stack: Stack) -> dict:
    return {path: shown.entry for path, shown in stack.tree.items()}


def changes_of(stack: Stack, ancestor: Stack) -> list:
    """The rows of *stack* against *ancestor*, whose layers it begins with."""
    before, after = ancestor.view(), stack.view()
    rows = rows_between(before, after, len(ancestor.layers))
    before.close()
    after.close()
    return rows


def side_of(stack: Stack, rows: list) -> Side:
    replaced = {join(directory, name) if name else b"" for directory, name, e in rows if e.kind is Kind.OPAQUE}
    return Side(entries(stack), frozenset(replaced))


def merged(fork: Fork, policy: Policy, rows=None) -> tuple[Merge, dict]:
    """The merge of a fork, and the tree that it makes."""
    ancestor, theirs = fork.ancestor.view(), fork.theirs.view()
    rows = changes_of(fork.ours, fork.ancestor) if rows is None else rows
    was = shown_tree(theirs)
    totals = totals_of(was)
    shared = len(fork.ancestor.layers)
    found = merge(rows, ancestor, theirs, policy, totals=totals, shared=shared, mark=b"m")
    within = theirs.layers[shared:]
    assert found == merge(rows, ancestor, theirs, policy, totals=totals, within=within, mark=b"m")
    made = View([*theirs.layers, reader_of(found.rows)])
    tree = shown_tree(made)
    assert totals_of(tree) == (found.used_bytes, found.inode_count)
    assert (found.used_bytes, found.inode_count) == totals_with(theirs, totals, found.rows)
    for entry, names in tree.values():
        assert all(tree[name][0] == entry for name in names)
    different = {path for path in {**was, **tree} if was.get(path) != tree.get(path)}
    assert different == {change.path for change in path_changes(theirs, found.rows)}
    for directory, name, entry in found.rows:
        path = join(directory, name) if name else b""
        assert path in different or entry.kind is Kind.OPAQUE
    made.close()
    ancestor.close()
    return found, tree


DECIDING = [Policy.OURS, Policy.THEIRS, Policy.LAST_WRITE_WINS]


@given(forks(), st.sampled_from(DECIDING))
@settings(max_examples=40)
def test_a_merge_is_what_the_oracle_says(fork: Fork, policy: Policy):
    rows, other = changes_of(fork.ours, fork.ancestor), changes_of(fork.theirs, fork.ancestor)
    oracle = Oracle(entries(fork.ancestor), side_of(fork.ours, rows), side_of(fork.theirs, other), policy)
    found, tree = merged(fork, policy, rows)

    assert sorted(oracle.conflicts) == [conflict.path for conflict in found.conflicts]
    assert oracle.merged() == {path: entry for path, (entry, _) in tree.items()}


@given(forks())
@settings(max_examples=25)
def test_conflicts_are_what_the_oracle_says_from_either_side(fork: Fork):
    rows, other = changes_of(fork.ours, fork.ancestor), changes_of(fork.theirs, fork.ancestor)
    sides = side_of(fork.ours, rows), side_of(fork.theirs, other)
    oracle = Oracle(entries(fork.ancestor), *sides, Policy.ERROR)
    found, tree = merged(fork, Policy.ERROR, rows)
    mirrored, _ = merged(Fork(fork.ancestor, fork.theirs, fork.ours), Policy.ERROR, other)

    assert sorted(oracle.conflicts) == [conflict.path for conflict in found.conflicts]
    assert sorted(oracle.conflicts) == [conflict.path for conflict in mirrored.conflicts]
    if not oracle.conflicts:
        assert oracle.merged() == {path: entry for path, (entry, _) in tree.items()}
    else:
        assert [] == found.rows


@pytest.mark.parametrize("policy", Policy)
@given(forks())
@settings(max_examples=8)
def test_merging_with_a_side_that_changed_nothing_gives_the_other(policy, fork: Fork):
    idle = Fork(fork.ancestor, fork.ours, fork.ancestor)
    found, tree = merged(idle, policy)

    assert [] == found.conflicts
    assert expected_tree(fork.ours) == tree
    found, _ = merged(Fork(fork.ancestor, fork.ancestor, fork.theirs), policy)
    assert ([], []) == (found.rows, found.conflicts)


@pytest.mark.parametrize("policy", Policy)
@given(forks())
@settings(max_examples=8)
def test_merging_with_a_side_that_changed_the_same_is_nothing(policy, fork: Fork):
    found, _ = merged(Fork(fork.ancestor, fork.ours, fork.ours), policy)

    assert ([], []) == (found.rows, found.conflicts)


@given(forks())
@settings(max_examples=25)
def test_changes_that_go_together_may_come_in_either_order(fork: Fork):
    found, one = merged(fork, Policy.ERROR)
    _, other = merged(Fork(fork.ancestor, fork.theirs, fork.ours), Policy.ERROR)
    ours, theirs, before = entries(fork.ours), entries(fork.theirs), entries(fork.ancestor)
    # Of a directory that both made, the attributes of the later one are taken.
    both_made = {
        path
        for path in {*ours} & {*theirs}
        if ours[path].is_directory and not (path in before and before[path].is_directory)
    }

    if not found.conflicts:
        assert [*one] == [*other]
        assert all(one[path][0] == other[path][0] for path in one if path not in both_made)


@given(forks())
@settings(max_examples=25)
def test_keeping_both_loses_nothing(fork: Fork):
    found, tree = merged(fork, Policy.KEEP_BOTH)
    there = {entry for entry, _ in tree.values()}
    before = entries(fork.ancestor)
    conflicts = {conflict.path for conflict in found.conflicts}
    for path, entry in entries(fork.theirs).items():
        if path in conflicts and entry != before.get(path) and not entry.is_directory:
            assert tree[path][0] == entry
    for path, entry in entries(fork.ours).items():
        if path in conflicts and entry != before.get(path) and not entry.is_directory:
            assert entry in there
