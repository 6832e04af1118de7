"""Edits: a version's tree with changes on top that nobody mounted, and the rows that say them.

It is what an overlay's upper is to a mount: what was put, removed, copied or moved lies in a mapping of paths
over the view, and `changes` makes rows of it, as of an upper.  So a moved or copied directory costs no more
than a mention until rows are made, and no data is touched.

Always true:

  1. What raises has changed nothing, but that of several copies the first ones may have been made.
  2. Every held path's parents are held, up to the root; a whiteout is held only where the view shows something.
  3. Symlinks on the way to a path are followed; the last name of what is put, removed or moved is not.
  4. A hard link group of the view of which a name was moved is held whole, so that it stays one inode.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from volume_core.domain.changes import EMPTY_TOTALS, Changes, Upper, changes
from volume_core.domain.paths import find, parts_of, shown
from volume_core.domain.view import Node, View
from volume_core.errors import ExistsError, InvalidNameError, NoSuchPathError, VolumeError
from volume_core.format.entries import WHITEOUT, Entry, Kind, join, split
from volume_core.format.soundness import NAME_BYTES_MAX

DIRECTORY_MODE = 0o755


class Spot(NamedTuple):
    """One path of an edited tree.

    `held` is what was put there, None where the view shows through; `node` is the view's: what shows through,
    of a directory that is held the one whose children do.
    """

    path: bytes
    held: Entry | None
    node: Node | None

    @property
    def name(self) -> bytes:
        """The last part of the path; b"" for the root."""
        return split(self.path)[1]

    @property
    def kind(self) -> int:
        """A Kind's number; of a directory DIRECTORY or OPAQUE."""
        return self.held.kind if self.held is not None else self._node.row.kind

    @property
    def size(self) -> int:
        """Bytes of a file, else 0."""
        return self.held.size if self.held is not None else self._node.row.size

    @property
    def mtime_ns(self) -> int:
        """When it was changed last."""
        return self.held.mtime_ns if self.held is not None else self._node.row.mtime_ns

    @property
    def is_directory(self) -> bool:
        """Whether paths may lie below this one."""
        return self.held.is_directory if self.held is not None else self._node.is_directory

    @property
    def link_target(self) -> bytes | None:
        """Where a symlink leads; None of anything else."""
        if self.held is None:
            return self._node.link_target
        return self.held.target if self.held.kind is Kind.SYMLINK else None

    @property
    def base(self) -> bytes | None:
        """Of a directory, the path in the view whose children show through; None if none do."""
        return self.node.path if self.node is not None else None

    @property
    def base_below(self) -> bytes | None:
        """`base`, of a directory only."""
        return self.base if self.is_directory else None

    @property
    def _node(self) -> Node:
        assert self.node is not None
        return self.node


class Edits:
    """Changes over *view*.  Used by one thread at a time, as the view is.

    What is made here (parents) belongs to *owner* (uid, gid); directories whose names change get *now_ns*.
    """

    def __init__(self, view: View, *, owner: tuple[int, int], now_ns: int) -> None:
        self.view = view
        self._owner = owner
        self._now_ns = now_ns
        root = view.entry(view.root) if view.layers else self._new_directory()
        self._held: dict[bytes, Upper] = {b"": Upper(root, b"")}
        self._names: dict[bytes, set[bytes]] = defaultdict(set)  # held, by directory
        self._links = 0
        self._groups: dict[int, int] = {}  # number of a view's link group that is held -> its number here
        self._latest: tuple[bytes, Spot] | None = None  # the directory that was put into last, by its path as given

    # -- asking

    @property
    def root(self) -> Spot:
        """The root directory."""
        return Spot(b"", self._held[b""].entry, self.view.root)

    def lookup(self, directory: Spot, name: bytes) -> Spot | None:
        """Return what *directory* shows as *name*, or None."""
        path = join(directory.path, name)
        held = self._held.get(path)
        if held is not None:
            return self._spot(path, held)
        node = self.view.lookup(directory.node, name) if directory.node is not None else None
        return None if node is None else Spot(path, None, node)

    def listing(self, directory: Spot) -> list[Spot]:
        """Return everything *directory* shows, sorted by name."""
        found: dict[bytes, Spot | None] = {}
        if directory.node is not None:
            for node in self.view.listing(directory.node):
                found[node.name] = Spot(join(directory.path, node.name), None, node)
        for name in self._names.get(directory.path, ()):
            path = join(directory.path, name)
            found[name] = self._spot(path, self._held[path])
        return [spot for _, spot in sorted(found.items()) if spot is not None]

    def _spot(self, path: bytes, held: Upper) -> Spot | None:
        if held.entry.kind is Kind.WHITEOUT:
            return None
        return Spot(path, held.entry, self.view.resolve(held.base) if held.base is not None else None)

    def resolve(self, path: bytes, *, follow: bool = True) -> Spot | None:
        """Return what lies at *path*, edits included, or None."""
        return find(self, path, follow=follow)

    def find(self, path: bytes, *, follow: bool = True) -> Spot:
        """Return what lies at *path*, edits included; NoSuchPathError if nothing does."""
        spot = find(self, path, follow=follow)
        if spot is None:
            raise NoSuchPathError(f"{shown(path)}: there is no such path")
        return spot

    def entry(self, spot: Spot) -> Entry:
        """Return *spot* as a value, content included; `hardlink` means something among values of this only."""
        return spot.held if spot.held is not None else self.view.entry(spot._node)

    def walk(self, start: Spot) -> Iterator[Spot]:
        """Yield *start* and all below it: parents before children."""
        waiting = [start]
        while waiting:
            spot = waiting.pop()
            yield spot
            if spot.is_directory:
                waiting.extend(reversed(self.listing(spot)))

    # -- putting

    def put(self, path: bytes, entry: Entry, *, force: bool = False) -> bytes:
        """Put *entry*, anything but a directory, at *path*; parents are made.  Return the path it lies at.

        Raises ExistsError where anything is there and not *force*, and where a directory is there.
        """
        self.check_free(path, force=force)
        directory, name = self._placed(path)
        self._put(directory, name, Upper(entry._replace(hardlink=0) if entry.hardlink else entry))
        self._latest = split(path)[0], directory
        return join(directory.path, name)

    def check_free(self, path: bytes, *, force: bool = False) -> None:
        """Raise what put() would, because of what is at *path*."""
        above, name = split(path)
        if self._latest is not None and self._latest[0] == above and name not in (b"", b".", b".."):
            there = self.lookup(self._latest[1], name)
        else:
            there = find(self, path, follow=False)
        if there is not None and (there.is_directory or not force):
            raise exists([path], is_directory=there.is_directory)

    def put_tree(self, path: bytes, tree: Mapping[bytes, Upper], *, force: bool = False) -> None:
        """Put *tree*, of which b"" is the directory at *path*, merging it into what is there; parents are made.

        A directory that is at *path* keeps its attributes; those below take the tree's.  Raises ExistsError
        naming every path at which something is in the way.
        """
        in_the_way = list(self.in_the_way(path, tree, force=force))
        if in_the_way:
            raise exists(in_the_way)
        is_new = find(self, path) is None
        top = self._made(path, tree[b""].entry)
        self._hold_directory(top.path)
        links: dict[int, int] = {}
        spots: dict[bytes, Spot] = {b"": top}
        for below, (entry, _) in tree.items():
            if not below:
                continue
            above, name = split(below)
            there = self.lookup(spots[above], name)
            if entry.hardlink:
                if entry.hardlink not in links:
                    links[entry.hardlink] = self._new_link()
                entry = entry._replace(hardlink=links[entry.hardlink])  # noqa: PLW2901 -- the same path's, renumbered
            held = Upper(entry, there.base if there is not None and entry.is_directory else None)
            target = join(top.path, below)
            if there is None and not above and not is_new:
                self._touch(top.path)
            self._hold(target, held)
            if entry.is_directory:
                spots[below] = Spot(target, entry, there.node if there is not None else None)

    def in_the_way(self, path: bytes, tree: Mapping[bytes, Upper], *, force: bool = False) -> Iterator[bytes]:
        """Yield the paths at which put_tree() would meet what it may not replace."""
        top = find(self, path)
        if top is None:
            return
        if not top.is_directory:
            yield path
            return
        spots: dict[bytes, Spot] = {b"": top}
        for below, (entry, _) in tree.items():
            above, name = split(below)
            if not below or above not in spots:
                continue
            there = self.lookup(spots[above], name)
            if there is None:
                continue
            if there.is_directory and entry.is_directory:
                spots[below] = there
            elif there.is_directory or entry.is_directory or not force:
                yield join(top.path, below)

    def make_directory(self, path: bytes, *, exist_ok: bool = True) -> None:
        """Make the directory *path* and its parents."""
        if not exist_ok and find(self, path) is not None:
            raise exists([path])
        self._made(path, self._new_directory())

    # -- removing

    def remove(self, path: bytes, *, recursive: bool = False) -> None:
        """Remove what is at *path*; a directory only if *recursive*.  Raises NoSuchPathError."""
        spot = self.find(path, follow=False)
        if not spot.path:
            raise VolumeError("/: the root of a volume cannot be removed")
        if spot.is_directory and not recursive:
            raise VolumeError(f"{shown(path)}: it is a directory; recursive=True removes it with all that is in it")
        self._remove(spot)

    def _remove(self, spot: Spot) -> None:
        self._drop(spot.path)
        above, name = split(spot.path)
        self._hold_directory(above)
        directory = self.find(above)
        if directory.node is not None and self.view.lookup(directory.node, name) is not None:
            self._hold(spot.path, Upper(WHITEOUT))
        self._touch(above)

    # -- copying and moving

    def copy(self, sources: Sequence[bytes], destination: bytes, *, recursive: bool = False) -> None:
        """Copy as cp does; attributes are kept, and no data is moved.

        Several *sources* need a *destination* that is a directory; into one that is, each goes under its own name.
        Directories need *recursive*, and are merged into one that is there; symlinks are then copied, else
        followed.  What is copied is no hard link of anything.
        """
        into = find(self, destination)
        is_into = into is not None and into.is_directory
        if not is_into and (len(sources) != 1 or destination.endswith(b"/")):
            raise NoSuchPathError(f"{shown(destination)}: there is no such directory to copy into")
        for source in sources:
            spot = self.find(source, follow=not recursive)
            if spot.is_directory and not recursive:
                raise VolumeError(f"{shown(source)}: it is a directory; recursive=True copies it")
            name = parts_of(source)[-1:]
            name = name if name and name[0] != b".." else [spot.name]
            self._copy(spot, join(destination.rstrip(b"/"), name[0]) if is_into else destination)

    def _copy(self, start: Spot, target: bytes) -> None:
        directory, name = self._placed(target, make=False)
        path = join(directory.path, name)
        if _is_at_or_below(path, start.path):
            raise VolumeError(f"{shown(start.path)}: it cannot be copied to itself, or into itself ({shown(target)})")
        if _is_at_or_below(start.path, path):
            raise VolumeError(f"{shown(start.path)}: it cannot be copied in place of what holds it ({shown(target)})")
        copies: list[tuple[Spot, bytes]] = []
        waiting = [(start, directory, name)]
        while waiting:
            spot, holder, name = waiting.pop()
            there = self.lookup(holder, name)
            if there is None or not (there.is_directory or spot.is_directory):
                copies.append((spot, join(holder.path, name)))
            elif there.is_directory and spot.is_directory:
                waiting.extend((child, there, child.name) for child in self.listing(spot))
            else:
                raise exists([there.path], is_directory=there.is_directory)
        for spot, copied in copies:
            above, name = split(copied)
            self._put(self.find(above), name, Upper(self.entry(spot)._replace(hardlink=0), spot.base_below))
            self._copy_below(spot, copied)

    def _copy_below(self, spot: Spot, target: bytes) -> None:
        """Hold what differs, below the copy *target* of *spot*, from the part of the view that shows through."""
        if not spot.is_directory:
            return
        for path, held in list(self._held_below(spot.path)):
            copied = target + path[len(spot.path) :]
            self._hold(copied, held._replace(entry=held.entry._replace(hardlink=0)))
        for linked in self._linked_below(spot):
            copied = target + linked.path[len(spot.path) :]
            self._hold_directory(split(copied)[0])
            self._hold(copied, Upper(self.view.entry(linked._node)._replace(hardlink=0)))

    def move(self, source: bytes, destination: bytes) -> None:
        """Give what is at *source* the path *destination*, as rename(2) does; parents are made.

        What is there is replaced: anything but a directory by such, an empty directory by a directory.  Raises
        ExistsError where that is not so.
        """
        spot = self.find(source, follow=False)
        if not spot.path:
            raise VolumeError("/: the root of a volume cannot be moved")
        path = self._real(destination)
        if path == spot.path:
            return
        if _is_at_or_below(path, spot.path):
            raise VolumeError(f"{shown(source)}: it cannot be moved into itself ({shown(destination)})")
        there = find(self, path, follow=False)
        if there is not None and (
            there.is_directory != spot.is_directory or (there.is_directory and self.listing(there))
        ):
            raise exists([path], is_directory=there.is_directory)
        directory, name = self._placed(destination)
        for linked in self._linked_below(spot):
            self._hold_group(linked._node)
        spot = self.find(spot.path, follow=False)
        moved = [(below[len(spot.path) :], held) for below, held in self._held_below(spot.path)]
        self._put(directory, name, Upper(self.entry(spot), spot.base_below))
        for below, held in moved:
            self._hold(path + below, held)
        self._remove(spot)

    def _linked_below(self, start: Spot) -> list[Spot]:
        """The view's own names of hard link groups, at and below *start*."""
        if not self.view.has_links:
            return []
        return [spot for spot in self.walk(start) if spot.held is None and spot._node.row.hardlink]

    def _hold_group(self, node: Node) -> None:
        """Hold every name of the view's hard link group *node* that is still shown where it was."""
        if node.number in self._groups:
            return
        number = self._groups[node.number] = self._new_link()
        entry = self.view.entry(node)._replace(hardlink=number)
        for path in self.view.links(node):
            spot = find(self, path, follow=False)
            if spot is not None and spot.path == path and spot.held is None and spot._node.number == node.number:
                self._hold_directory(split(path)[0])
                self._hold(path, Upper(entry))

    # -- holding

    def _placed(self, path: bytes, *, make: bool = True) -> tuple[Spot, bytes]:
        """Return (the directory that holds or will hold *path*, its last name)."""
        parts = parts_of(path)
        if not parts or parts[-1] == b".." or b"\0" in path or max(map(len, parts)) > NAME_BYTES_MAX:
            raise InvalidNameError(
                f"{shown(path)!r} cannot name a file: names are 1 to {NAME_BYTES_MAX} bytes without / and NUL"
            )
        if make and self._latest is not None and (self._latest[0], parts[-1]) == split(path):
            return self._latest[1], parts[-1]
        above = b"/".join(parts[:-1])
        if make:
            return self._made(above, self._new_directory()), parts[-1]
        directory = self.find(above)
        if not directory.is_directory:
            raise NoSuchPathError(f"{shown(above)}: there is no such directory")
        return directory, parts[-1]

    def _real(self, path: bytes) -> bytes:
        """Return the path at which what is put at *path* would lie, no symlink on the way to it."""
        parts = parts_of(path)
        missing = parts[-1:]
        above = parts[:-1]
        while (found := find(self, b"/".join(above))) is None:
            missing.append(above.pop())
        return b"/".join([*parts_of(found.path), *reversed(missing)])

    def _made(self, path: bytes, entry: Entry) -> Spot:
        """Return the directory at *path*, made if it is not there: it as *entry*, its parents as new ones are."""
        parts, missing = parts_of(path), list[bytes]()
        while (found := find(self, b"/".join(parts))) is None:
            missing.append(parts.pop())
        if not found.is_directory:
            raise exists([b"/".join(parts)], what="is no directory")
        while missing:
            name = missing.pop()
            if name == b"..":
                found = self.find(split(found.path)[0])
                continue
            if self.lookup(found, name) is not None:
                raise exists([join(found.path, name)], what="is a symlink that leads nowhere")
            self._put(found, name, Upper(entry if not missing else self._new_directory()))
            found = Spot(join(found.path, name), self._held[join(found.path, name)].entry, None)
        return found

    def _put(self, directory: Spot, name: bytes, upper: Upper) -> None:
        """Hold *upper* in place of what *directory* shows as *name*."""
        path = join(directory.path, name)
        is_there = self.lookup(directory, name) is not None
        if is_there:
            self._drop(path)
        self._hold_directory(directory.path)
        self._hold(path, upper)
        if not is_there:
            self._touch(directory.path)

    def _hold_directory(self, path: bytes) -> None:
        """Hold the directory *path* and its parents as they are."""
        if path in self._held:
            return
        above, spot = b"", self.root
        for name in path.split(b"/"):
            found = self.lookup(spot, name)
            assert found is not None
            spot, above = found, join(above, name)
            if above not in self._held:
                self._hold(above, Upper(self.view.entry(spot._node), spot.base))

    def _hold(self, path: bytes, upper: Upper) -> None:
        above, name = split(path)
        self._held[path] = upper
        if path:
            self._names[above].add(name)

    def _drop(self, path: bytes) -> None:
        """Hold nothing at and below *path*."""
        self._latest = None
        for below, _ in list(self._held_below(path)):
            del self._held[below]
            self._names.pop(below, None)
        self._held.pop(path, None)
        self._names.pop(path, None)
        above, name = split(path)
        self._names[above].discard(name)

    def _held_below(self, path: bytes) -> Iterator[tuple[bytes, Upper]]:
        """Yield what is held below *path*, parents before children."""
        waiting = [path]
        while waiting:
            above = waiting.pop()
            for name in self._names.get(above, ()):
                below = join(above, name)
                yield below, self._held[below]
                waiting.append(below)

    def _touch(self, path: bytes) -> None:
        held = self._held[path]
        if held.entry.mtime_ns != self._now_ns:
            self._held[path] = held._replace(entry=held.entry._replace(mtime_ns=self._now_ns))

    def _new_directory(self) -> Entry:
        return Entry(Kind.DIRECTORY, DIRECTORY_MODE, *self._owner, self._now_ns)

    def _new_link(self) -> int:
        self._links += 1
        return self._links

    # -- the end

    def changes(self, totals: tuple[int, int] = EMPTY_TOTALS) -> Changes:
        """Return the rows that make the view's tree this one; *totals* are (used_bytes, inode_count) of the view."""
        return changes(self._held, self.view, self.view, None, totals)


def exists(paths: Iterable[bytes], *, is_directory: bool = False, what: str = "") -> ExistsError:
    """Return the error that says that *paths* are there already."""
    names = [path.strip(b"/").decode("utf-8", "surrogateescape") for path in paths]
    listed = ", ".join(f"/{name}" for name in names[:_SHOWN_MAX])
    more = f" and {len(names) - _SHOWN_MAX} more" if len(names) > _SHOWN_MAX else ""
    told = what or ("is a directory: remove it first" if is_directory else "there already: force=True replaces files")
    return ExistsError(f"{listed}{more}: {told}", names)


_SHOWN_MAX = 10


def _is_at_or_below(path: bytes, above: bytes) -> bool:
    return not above or path == above or path.startswith(above + b"/")
