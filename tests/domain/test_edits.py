"""Edits of a view: against a plain mapping of paths to inodes, which knows neither layers nor rows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core.domain.changes import Upper
from volume_core.domain.edits import Edits
from volume_core.domain.view import View
from volume_core.errors import ExistsError, InvalidNameError, NoSuchPathError, VolumeError
from volume_core.format.entries import Entry, Kind, join, split
from volume_core.testing.stacks import NAMES, Stack, file_content, reader_of, shown_tree, stacks

NOW_NS = 7 * 10**18
OWNER = (71, 72)
NEW_DIRECTORY = Entry(Kind.DIRECTORY, 0o755, *OWNER, NOW_NS)


def file(seed: int) -> Entry:
    size, content = file_content(seed)
    return Entry(Kind.FILE, 0o600 + seed, seed, seed, 10**17 + seed, size, content=content)


class Refused(Exception):
    """What the model does not do."""


@dataclass
class Model:
    """Path -> (entry, inode)."""

    tree: dict[bytes, tuple[Entry, object]]
    fresh: itertools.count = field(default_factory=itertools.count)

    @classmethod
    def of(cls, stack: Stack) -> Model:
        root = stack.tree[b""].entry if stack.layers else NEW_DIRECTORY
        inodes = {path: (shown.entry, shown.link or path) for path, shown in stack.tree.items()}
        return cls(inodes | {b"": (root, b"")})

    def is_directory(self, path: bytes) -> bool:
        return path in self.tree and self.tree[path][0].is_directory

    def below(self, path: bytes) -> list[bytes]:
        return sorted(each for each in self.tree if each.startswith(path + b"/"))

    def touch(self, path: bytes) -> None:
        entry, inode = self.tree[path]
        self.tree[path] = entry._replace(mtime_ns=NOW_NS), inode

    def parents(self, path: bytes) -> None:
        """Make what is missing above *path*, or refuse."""
        above = split(path)[0]
        if above not in self.tree:
            self.parents(above)
            self.tree[above] = NEW_DIRECTORY, next(self.fresh)
            self.touch(split(above)[0])
        if not self.is_directory(above):
            raise Refused

    def put(self, path: bytes, seed: int) -> None:
        if not path or self.is_directory(path):
            raise Refused
        self.parents(path)
        if path not in self.tree:
            self.touch(split(path)[0])
        self.tree[path] = file(seed), next(self.fresh)

    def mkdir(self, path: bytes, _seed: int) -> None:
        if path:
            self.parents(join(path, b"x"))

    def remove(self, path: bytes, seed: int) -> None:
        if not path or path not in self.tree or (self.is_directory(path) and seed % 2):
            raise Refused
        for each in [path, *self.below(path)]:
            del self.tree[each]
        self.touch(split(path)[0])

    def move(self, path: bytes, goal: bytes) -> None:
        if not path or not goal or path not in self.tree or goal.startswith(path + b"/"):
            raise Refused
        self.parents(goal)
        if path == goal:
            return
        if goal in self.tree and (self.is_directory(path) != self.is_directory(goal) or self.below(goal)):
            raise Refused
        moved = {goal + each[len(path) :]: self.tree.pop(each) for each in [path, *self.below(path)]}
        if goal not in self.tree:
            self.touch(split(goal)[0])
        self.touch(split(path)[0])
        self.tree |= moved

    def copy(self, path: bytes, goal: bytes, *, recursive: bool) -> None:
        source, is_link = self.tree.get(path), path in self.tree and self.tree[path][0].kind is Kind.SYMLINK
        if source is None or (not recursive and (self.is_directory(path) or is_link)):
            raise Refused
        if self.is_directory(goal):
            goal = join(goal, split(path)[1])
        above = split(goal)[0]
        if not goal or not self.is_directory(above) or goal == path or goal.startswith(path + b"/") or not path:
            raise Refused
        if path.startswith(goal + b"/"):
            raise Refused
        copied: set[bytes] = set()
        for each in [path, *self.below(path)]:
            there, entry = goal + each[len(path) :], self.tree[each][0]
            if there in self.tree and entry.is_directory != self.is_directory(there):
                raise Refused
            if there in self.tree and entry.is_directory:
                continue
            if there not in self.tree and split(there)[0] not in copied:
                self.touch(split(there)[0])
            copied.add(there)
            self.tree[there] = entry, next(self.fresh)

    def shown(self) -> dict[bytes, tuple[Entry, tuple[bytes, ...]]]:
        names: dict[object, list[bytes]] = {}
        for path in sorted(self.tree):
            names.setdefault(self.tree[path][1], []).append(path)
        return {path: (entry, tuple(names[inode])) for path, (entry, inode) in self.tree.items()}

    def totals(self) -> tuple[int, int]:
        inodes = {inode: entry.size for entry, inode in self.tree.values()}
        return sum(inodes.values()), len(inodes)


PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(b"/".join)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "mkdir", "remove", "move", "move", "copy", "copy"]), PATHS, PATHS,
              st.integers(0, 11)),
    min_size=1, max_size=12,
)  # fmt: skip


def apply(edits: Edits, model: Model, step: str, path: bytes, goal: bytes, seed: int) -> None:
    before = dict(model.tree)
    try:
        if step == "copy":
            model.copy(path, goal, recursive=bool(seed % 3))
        elif step == "move":
            model.move(path, goal)
        else:
            getattr(model, step)(path, seed)
    except Refused:
        model.tree = before
        with pytest.raises(VolumeError):
            do(edits, step, path, goal, seed)
        return
    do(edits, step, path, goal, seed)


def do(edits: Edits, step: str, path: bytes, goal: bytes, seed: int) -> None:
    if step == "put":
        edits.put(path, file(seed), force=True)
    elif step == "mkdir":
        edits.make_directory(path)
    elif step == "remove":
        edits.remove(path, recursive=not seed % 2)
    elif step == "move":
        edits.move(path, goal)
    else:
        edits.copy([path], goal, recursive=bool(seed % 3))


def walked(edits: Edits) -> dict[bytes, tuple]:
    """What the edits show, without saying which names are one inode."""
    return {
        spot.path: (edits.entry(spot)._replace(hardlink=0), spot.kind, spot.size, spot.mtime_ns, spot.link_target)
        for spot in edits.walk(edits.root)
    }


@given(stacks(layers_max=3), STEPS)
@settings(max_examples=300)
def test_edits_show_and_become_what_a_plain_tree_would(stack, steps):
    view = stack.view()
    model = Model.of(stack)
    totals = model.totals() if stack.layers else (0, 1)
    edits = Edits(view, owner=OWNER, now_ns=NOW_NS)
    for step in steps:
        apply(edits, model, *step)
    expected = model.shown()
    made = edits.changes(totals)

    assert {path: entry for path, (entry, _) in expected.items()} == {p: each[0] for p, each in walked(edits).items()}
    assert model.totals() == (made.used_bytes, made.inode_count)
    after = View([*stack.readers(), reader_of(made.rows)])
    assert expected == shown_tree(after)
    for _, name, entry in made.rows:
        assert entry.kind is not Kind.WHITEOUT or name
    after.close()
    view.close()


@given(stacks(layers_max=3))
@settings(max_examples=50)
def test_what_is_put_and_is_equal_is_no_change(stack):
    view = stack.view()
    edits = Edits(view, owner=OWNER, now_ns=NOW_NS)
    for path, (entry, names) in shown_tree(view).items():
        if not entry.is_directory and len(names) == 1:
            edits.put(path, entry, force=True)

    assert stack.layers == [] or [] == edits.changes().rows
    view.close()


@given(stacks(layers_max=3), stacks(layers_max=2), st.booleans())
@settings(max_examples=100)
def test_a_tree_is_merged_into_what_is_there(stack, other, force):
    view, put = stack.view(), other.view()
    tree = {node.path: Upper(put.entry(node)) for node in put.walk()}
    edits = Edits(view, owner=OWNER, now_ns=NOW_NS)
    expected = Model.of(stack)
    clash = [
        path
        for path, (entry, _) in tree.items()
        if path in expected.tree
        and not (entry.is_directory and expected.is_directory(path))
        and (not force or entry.is_directory or expected.is_directory(path))
        and all(expected.is_directory(above) for above in above_of(path))
    ]
    if clash:
        with pytest.raises(ExistsError) as raised:
            edits.put_tree(b"/", tree, force=force)
        assert len(clash) == len(raised.value.paths)
        assert [] == edits.changes().rows or not stack.layers
    else:
        edits.put_tree(b"/", tree, force=force)
        for path, (entry, inode) in Model.of(other).tree.items():
            if path:
                expected.tree[path] = entry, ("put", inode)
        if any(path and b"/" not in path and path not in stack.tree for path in tree):
            expected.touch(b"")
        after = View([*stack.readers(), reader_of(edits.changes().rows)])
        assert expected.shown() == shown_tree(after)
        after.close()
    view.close()
    put.close()


def above_of(path: bytes) -> list[bytes]:
    found = []
    while path:
        path = split(path)[0]
        found.append(path)
    return found


# By hand.


@pytest.fixture
def edits():
    """A small tree: d/{a, sub/b, hard}, hard2 (one inode with d/hard), link -> d."""
    rows = [
        (b"", b"", Entry(Kind.DIRECTORY, 0o755)),
        (b"", b"d", Entry(Kind.DIRECTORY, 0o700)),
        (b"", b"hard2", file(2)._replace(hardlink=1)),
        (b"", b"link", Entry(Kind.SYMLINK, 0o777, target=b"d")),
        (b"d", b"a", file(2)),
        (b"d", b"hard", file(2)._replace(hardlink=1)),
        (b"d", b"sub", Entry(Kind.DIRECTORY, 0o755)),
        (b"d/sub", b"b", file(6)),
    ]
    view = View([reader_of(rows)])
    yield Edits(view, owner=OWNER, now_ns=NOW_NS)
    view.close()


def rows(edits: Edits) -> list[tuple[bytes, Kind]]:
    return [(join(directory, name), entry.kind) for directory, name, entry in edits.changes().rows]


def test_links_on_the_way_are_followed_and_the_last_one_is_not(edits):
    assert b"d/new" == edits.put(b"/link/new", file(1))
    with pytest.raises(ExistsError, match="/link: there already"):
        edits.put(b"link", file(1))
    edits.put(b"link", file(1), force=True)

    assert Kind.FILE == edits.find(b"link").kind
    assert edits.find(b"d").is_directory


def test_a_moved_directory_is_a_mention_until_rows_are_made(edits):
    edits.move(b"d/sub", b"moved")
    edits.put(b"moved/more", file(1))

    assert edits.resolve(b"d/sub/b") is None
    assert file(6) == edits.entry(edits.find(b"moved/b"))
    d, f, w = Kind.DIRECTORY, Kind.FILE, Kind.WHITEOUT
    assert [(b"", d), (b"d", d), (b"moved", d), (b"d/sub", w), (b"moved/b", f), (b"moved/more", f)] == rows(edits)


def test_moving_one_name_of_an_inode_keeps_it_one(edits):
    edits.move(b"d/hard", b"elsewhere")
    links = {entry.hardlink for _, name, entry in edits.changes().rows if name in (b"elsewhere", b"hard2")}

    assert 1 == len(links)
    assert {0} != links


def test_a_copy_is_no_link(edits):
    edits.copy([b"d"], b"copy", recursive=True)
    edits.copy([b"hard2"], b"hard3")

    assert {0} == {entry.hardlink for _, _, entry in edits.changes().rows}


@pytest.mark.parametrize(
    ("sources", "destination", "recursive", "error"),
    [
        ([b"d"], b"copy", False, "recursive=True copies it"),
        ([b"d"], b"d/sub/x", True, "into itself"),
        ([b"d/a"], b"d/a", False, "to itself"),
        ([b"d/sub"], b"d/", True, "to itself"),
        ([b"d/a", b"hard2"], b"hard2", False, "no such directory to copy into"),
        ([b"d/a"], b"gone/", False, "no such directory to copy into"),
        ([b"d/a"], b"gone/x", False, "/gone: there is no such path"),
        ([b"gone"], b"x", False, "/gone: there is no such path"),
        ([b"d/sub"], b"d/a", True, "there already"),
        ([b"d/sub/b", b"d/a"], b"d/a", False, "no such directory"),
        ([b"/"], b"d", True, "into itself"),
    ],
)
def test_what_cp_refuses_is_refused(edits, sources, destination, recursive, error):
    with pytest.raises(VolumeError, match=error):
        edits.copy(sources, destination, recursive=recursive)

    assert [] == rows(edits)


def test_several_are_copied_into_a_directory_each_under_its_name(edits):
    edits.copy([b"link/a", b"/hard2"], b"/d/sub/../sub/", recursive=False)

    assert [b"d/sub/a", b"d/sub/b", b"d/sub/hard2"] == [spot.path for spot in edits.listing(edits.find(b"d/sub"))]


@pytest.mark.parametrize("path", [b"", b"/", b"..", b"a/..", b"x" * 256, b"a\0b", b"."])
def test_a_name_that_no_file_can_have_is_refused(edits, path):
    with pytest.raises((InvalidNameError, ExistsError)):
        edits.put(path, file(1), force=True)


def test_where_the_last_file_went_is_no_shortcut_to_elsewhere(edits):
    edits.put(b"link/one", file(1))
    with pytest.raises(ExistsError, match=r"/link/\.: there already"):
        edits.put(b"link/.", file(1))
    with pytest.raises(ExistsError):
        edits.put(b"link/..", file(1), force=True)
    edits.put(b"link/one", Entry(Kind.SYMLINK, 0o777, target=b"sub"), force=True)
    assert b"d/sub/two" == edits.put(b"link/one/two", file(1))
    edits.move(b"d", b"e")
    edits.put(b"d/three", file(1))

    assert [b"d", b"d/three"] == [spot.path for spot in edits.walk(edits.find(b"d"))]


def test_the_root_stays(edits):
    with pytest.raises(VolumeError, match="cannot be removed"):
        edits.remove(b"/", recursive=True)
    with pytest.raises(VolumeError, match="cannot be moved"):
        edits.move(b"/", b"x")
    with pytest.raises(NoSuchPathError):
        edits.remove(b"gone")
    with pytest.raises(VolumeError, match="recursive=True removes"):
        edits.remove(b"d")


def test_a_deep_path_needs_no_deep_stack(edits):
    deep = b"/".join([b"x"] * 2000)
    edits.put(deep, file(1))
    edits.copy([b"x"], b"y", recursive=True)
    edits.move(b"x", b"z")

    assert edits.resolve(deep.replace(b"x/", b"z/", 1)) is not None
    assert 8 + 2 * 2000 == sum(1 for _ in edits.walk(edits.root))
