"""What is a marker and what belongs to the tree."""

import pytest

from volume_core.parts.dialects import DIALECTS, FUSE_OVERLAY, KERNEL, PLAIN, USERXATTR, belongs_to_tree


@pytest.mark.parametrize(
    "name",
    ["user.x", "user.overlay", "user.overlayed", "trusted.x", "security.capability", "system.posix_acl_access",
     "system.posix_acl_default", "user.containers.x"],
)  # fmt: skip
def test_an_xattr_of_the_tree_is_kept(name):
    assert belongs_to_tree(name)


@pytest.mark.parametrize(
    "name",
    ["trusted.overlay.opaque", "trusted.overlay.origin", "trusted.overlay.overlay.redirect", "user.overlay.opaque",
     "user.overlay.metacopy", "user.fuseoverlayfs.opaque", "user.fuseoverlayfs.origin", "security.selinux",
     "security.ima", "security.evm", "system.data", "other"],
)  # fmt: skip
def test_a_marker_or_a_label_of_this_machine_is_not_kept(name):
    assert not belongs_to_tree(name)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda dialect: dialect.name)
def test_no_xattr_marker_of_any_dialect_is_kept(dialect):
    markers = {*dialect.opaque_xattrs, dialect.whiteout_xattr, dialect.redirect_xattr, dialect.metacopy_xattr} - {""}

    assert [] == list(filter(belongs_to_tree, markers))


def test_dialects_are_found_by_the_names_that_records_keep():
    assert {"kernel": KERNEL, "userxattr": USERXATTR, "fuse-overlay": FUSE_OVERLAY, "plain": PLAIN} == DIALECTS


@pytest.mark.parametrize("dialect", [KERNEL, USERXATTR, PLAIN], ids=lambda dialect: dialect.name)
def test_names_are_no_markers_where_they_are_legal(dialect):
    names = [b".wh.a", b".wh..wh..opq", b"b"]

    assert (names, [], False) == dialect.read_names(names)


@pytest.mark.parametrize(
    ("names", "holds", "removed", "opaque"),
    [
        ([b"a", b".wh.b"], [b"a"], [b"b"], False),
        ([b"a", b".wh.a"], [b"a"], [], False),  # what is there was not removed
        ([b".wh..wh..opq", b"x"], [b"x"], [], True),
        ([b".wh..wh..opq", b".wh..opq"], [], [b".opq"], True),
        ([b".wh..opq"], [], [b".opq"], False),
        ([b".wh."], [], [], False),
        ([b".wh..wh.x"], [], [b".wh.x"], False),
        ([b".why", b"x.wh.y", b".w"], [b".why", b"x.wh.y", b".w"], [], False),
        ([b".wh.\xff\n"], [], [b"\xff\n"], False),
    ],
)
def test_names_of_fuse_overlayfs_are_told_apart(names, holds, removed, opaque):
    assert (holds, removed, opaque) == FUSE_OVERLAY.read_names(names)
