"""How an upper directory spells what the base cannot show any more: the markers of each driver.

    dialect        a removed path              a directory that hides the base's     a moved directory   attributes only
    kernel         char device 0/0             trusted.overlay.opaque = y            ...redirect         ...metacopy
    userxattr      char device 0/0             user.overlay.opaque = y               never written       never written
    fuse-overlay   char device 0/0, .wh.NAME   an opaque xattr, .wh..wh..opq         never written       never written
    plain          (nothing is a marker: a plain directory stands for itself)

A removed path may also be an empty file with the xattr `...overlay.whiteout` (kernel and userxattr).
Opaque counts with the value "y" alone: "x" says only that a directory may hold such files.

Which xattrs belong to a tree, whatever the dialect:

  user.*                       what programs keep there
  security.capability          what makes `ping` work without root
  system.posix_acl_access      without it the group's bits of the mode, which then are the ACL's mask,
  system.posix_acl_default       would grant the group more than it ever had
  trusted.*                    as far as this user is shown it (root)

No others: the labels of SELinux, Smack, IMA and EVM are this machine's, not the tree's.  And in no
dialect the names that overlay file systems use for themselves, whoever wrote them: a version that held
them would be misread by the next mount.

Always true: what is a marker here never reaches an Entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

OVERLAY_NAMES = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")
_KEPT_NAMES = frozenset({"security.capability", "system.posix_acl_access", "system.posix_acl_default"})
_KEPT_PREFIXES = ("user.", "trusted.")

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"


def belongs_to_tree(xattr: str) -> bool:
    """Whether an xattr of that name is the tree's own and goes into versions."""
    return xattr in _KEPT_NAMES or (xattr.startswith(_KEPT_PREFIXES) and not xattr.startswith(OVERLAY_NAMES))


class Names(NamedTuple):
    """The names of one directory: what it `holds`, what of the base it has `removed`, whether it is `opaque`."""

    holds: list[bytes]
    removed: list[bytes]
    opaque: bool


@dataclass(frozen=True, slots=True)
class Dialect:
    """One driver's markers.  Xattr names are text, as the os module has them; an empty one is never a marker.

    `over_base`: the base shows through whatever no marker hides.  `device_whiteouts`: a character
    device 0/0 removes its path.  `name_markers`: names that begin with ".wh." are markers.  `own_pages`:
    what programs map are the driver's pages and not those of the upper's files.
    """

    name: str
    over_base: bool = True
    device_whiteouts: bool = True
    name_markers: bool = False
    own_pages: bool = False
    opaque_xattrs: frozenset[str] = frozenset()
    whiteout_xattr: str = ""
    redirect_xattr: str = ""
    metacopy_xattr: str = ""

    def read_names(self, names: Iterable[bytes]) -> Names:
        """Tell the names in a listing from its markers."""
        if not self.name_markers:
            return Names(list(names), [], False)
        holds, markers = list[bytes](), list[bytes]()
        for name in names:
            (markers if name.startswith(WHITEOUT_PREFIX) else holds).append(name)
        # What is there wins over its own removal: a crash between the two must cost no data.
        present = {*holds, b""}
        removed = (name.removeprefix(WHITEOUT_PREFIX) for name in markers if name != OPAQUE_NAME)
        return Names(holds, [name for name in removed if name not in present], OPAQUE_NAME in markers)


def _overlay(name: str, prefix: str) -> Dialect:
    return Dialect(
        name,
        opaque_xattrs=frozenset({f"{prefix}opaque"}),
        whiteout_xattr=f"{prefix}whiteout",
        redirect_xattr=f"{prefix}redirect",
        metacopy_xattr=f"{prefix}metacopy",
    )


KERNEL = _overlay("kernel", "trusted.overlay.")
USERXATTR = _overlay("userxattr", "user.overlay.")
FUSE_OVERLAY = Dialect(
    "fuse-overlay",
    name_markers=True,
    own_pages=True,
    # Which of them it writes depends on what it may: as root the kernel's own.
    opaque_xattrs=frozenset({"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"}),
)
PLAIN = Dialect("plain", over_base=False, device_whiteouts=False)

DIALECTS = {dialect.name: dialect for dialect in (KERNEL, USERXATTR, FUSE_OVERLAY, PLAIN)}
