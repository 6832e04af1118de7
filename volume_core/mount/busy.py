"""Who holds a mount: the open files, working directories and mappings below a path.

Read from /proc, where a user sees his own processes and root sees all.  Never touches the mount itself,
which may no longer answer.
"""

from __future__ import annotations

import contextlib
import os

_LINKS = ("cwd", "root", "exe")


def open_paths(path: str) -> list[str]:
    """Return what is open at or below *path* (without symlinks), sorted, relative to it; "." for itself."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found.update(_held_by(f"/proc/{pid}", path))
    return sorted(found)


def mapped_paths(path: str) -> list[str]:
    """Return what is mapped and shared at or below *path*, as open_paths() does."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        found.update(_relative(target, path) for target in _mapped(f"/proc/{pid}", shared_only=True))
    return sorted(found - {""})


def _held_by(process: str, path: str) -> set[str]:
    links = [f"{process}/{name}" for name in _LINKS]
    with contextlib.suppress(OSError):  # somebody else's, or just gone
        links += [f"{process}/fd/{fd}" for fd in os.listdir(f"{process}/fd")]
    targets = []
    for link in links:
        try:
            targets.append(os.readlink(link))
        except OSError:
            continue
    return {inside for target in [*targets, *_mapped(process)] if (inside := _relative(target, path))}


def _mapped(process: str, *, shared_only: bool = False) -> list[str]:
    try:
        with open(f"{process}/maps", "rb") as file:
            # address perms offset device inode path; the path is what is left, blanks and all
            fields = (line.rstrip(b"\n").split(None, 5) for line in file)
            named = (each for each in fields if len(each) == 6 and not (shared_only and each[1][3:] != b"s"))
            return [os.fsdecode(each[5]).replace("\\012", "\n") for each in named]
    except OSError:
        return []


def _relative(target: str, path: str) -> str:
    target = target.removesuffix(" (deleted)")
    if target == path:
        return "."
    return target[len(path) + 1 :] if target.startswith(f"{path}/") else ""
