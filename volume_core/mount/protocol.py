"""The kernel's FUSE protocol: bytes in, values out, and back.

Pure: nothing here opens, reads, waits or logs.  Numbers and layouts are those of the Linux header
`include/uapi/linux/fuse.h`, protocol 7.40 (its names in the comments); multi-byte fields are little-endian
because every machine we run on is.  Only what a read-only server needs is here.

Always true: every structure of the header is a multiple of 8 bytes, so "<" (no padding) packs it as C does.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

KERNEL_MAJOR = 7  # FUSE_KERNEL_VERSION
KERNEL_MINOR = 40
# 5.15 is the oldest kernel we support; it speaks 7.34.  Older ones lack what REQUIRED asks for.
KERNEL_MINOR_MIN = 31

# enum fuse_opcode
LOOKUP = 1
FORGET = 2  # no answer
GETATTR = 3
SETATTR = 4
READLINK = 5
SYMLINK = 6
MKNOD = 8
MKDIR = 9
UNLINK = 10
RMDIR = 11
RENAME = 12
LINK = 13
OPEN = 14
READ = 15
WRITE = 16
STATFS = 17
RELEASE = 18
FSYNC = 20
SETXATTR = 21
GETXATTR = 22
LISTXATTR = 23
REMOVEXATTR = 24
FLUSH = 25
INIT = 26
OPENDIR = 27
READDIR = 28
RELEASEDIR = 29
FSYNCDIR = 30
ACCESS = 34
CREATE = 35
INTERRUPT = 36  # no answer
DESTROY = 38
IOCTL = 39
BATCH_FORGET = 42  # no answer
FALLOCATE = 43
READDIRPLUS = 44
RENAME2 = 45
LSEEK = 46
COPY_FILE_RANGE = 47
TMPFILE = 51
STATX = 52
OPCODES_MAX = 64  # above every number the header gives (CUSE_INIT aside), so a list can be the dispatch table

# Everything that would change the tree: an answer of EROFS, whatever the arguments.
CHANGING = (
    SETATTR, SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, WRITE, SETXATTR, REMOVEXATTR, CREATE, FALLOCATE,
    RENAME2, COPY_FILE_RANGE, TMPFILE,
)  # fmt: skip

# enum fuse_notify_code
NOTIFY_STORE = 4
NOTIFY_RESEND = 7  # kernel >= 6.9

# FUSE_INIT flags
_ASYNC_READ = 1 << 0  # several READs of one file at once
_EXPORT_SUPPORT = 1 << 4  # LOOKUP of "." and ".." by node: file handles (NFS, overlay's index=on)
_DO_READDIRPLUS = 1 << 13
_NO_OPEN_SUPPORT = 1 << 17  # ENOSYS to OPEN means "open without asking, keep the cache"
_PARALLEL_DIROPS = 1 << 18
POSIX_ACL = 1 << 20  # access lists are checked, and so are modes, whatever the mount option says
_MAX_PAGES = 1 << 22
_CACHE_SYMLINKS = 1 << 23
_NO_OPENDIR_SUPPORT = 1 << 24
_INIT_EXT = 1 << 30
_HAS_RESEND = 1 << 39
# Not wanted: FUSE_ASYNC_DIO (1 << 15), with which no signal ends a direct read that waits for the store.
REQUIRED = _NO_OPEN_SUPPORT | _NO_OPENDIR_SUPPORT | _MAX_PAGES
_WANTED = (
    REQUIRED | _ASYNC_READ | _EXPORT_SUPPORT | _DO_READDIRPLUS | _PARALLEL_DIROPS | _CACHE_SYMLINKS
    | _INIT_EXT | _HAS_RESEND
)  # fmt: skip

PAGE_BYTES = 4096
READ_BYTES_MAX = 1 << 20  # 256 pages: the kernel's own limit (fs.fuse.max_pages_limit) unless raised
# The kernel keeps at most its default (128 KiB) of these; the rest takes /sys/class/bdi/*/read_ahead_kb.
READAHEAD_BYTES = 8 << 20
# Background requests (readahead, asynchronous reads) that may wait for us: enough to hide an object store's
# latency (16 files of 8 reads ahead), and each holds at most READ_BYTES_MAX of page cache.
_BACKGROUND_MAX = 128
_BACKGROUND_CONGESTED = 96
# Without writes 8 KiB would do (FUSE_MIN_READ_BUFFER); BATCH_FORGET fills what it is given, 16 bytes a node.
REQUEST_BYTES_MAX = 64 << 10

# A version never changes, so nothing that was answered once needs to be asked again: 100 years.
FOREVER_S = 86_400 * 365 * 100

HEADER_BYTES = 40  # sizeof(struct fuse_in_header)
# struct fuse_in_header: (length,) opcode, unique, node number (uid, gid, pid, total_extlen, padding)
IN_HEADER = struct.Struct("<4xIQQ16x")
OUT_HEADER = struct.Struct("<IiQ")  # struct fuse_out_header: length, -errno or a notification's code, unique
OUT_HEADER_BYTES = OUT_HEADER.size

_INIT_IN = struct.Struct("<IIII")  # struct fuse_init_in: major, minor, max_readahead, flags (flags2, unused)
_INIT_IN_EXT = struct.Struct("<I")
_INIT_EXT_OFFSET = HEADER_BYTES + _INIT_IN.size
# struct fuse_init_out: major, minor, max_readahead, flags, max_background, congestion_threshold, max_write,
# time_gran, max_pages, map_alignment, flags2, unused[7]
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")

READ_IN = struct.Struct("<8xQI")  # struct fuse_read_in, and READDIR's: (fh,) offset, size
XATTR_IN = struct.Struct("<I4x")  # struct fuse_getxattr_in: size (then the name, with a NUL)
XATTR_OUT = struct.Struct("<I4x")  # struct fuse_getxattr_out: size
LSEEK_IN = struct.Struct("<8xQI4x")  # struct fuse_lseek_in: (fh,) offset, whence
LSEEK_OUT = struct.Struct("<Q")
OPEN_IN = struct.Struct("<I4x")  # struct fuse_open_in: flags of open(2)
INTERRUPT_IN = struct.Struct("<Q")  # struct fuse_interrupt_in: unique of the request that is no longer wanted

# struct fuse_attr: ino, size, blocks, atime, mtime, ctime (s), their ns, mode, nlink, uid, gid, rdev, blksize, flags
_ATTR = "QQQqqqIIIIIIIIII"
ATTR_OUT = struct.Struct("<QI4x" + _ATTR)  # struct fuse_attr_out: attr_valid, its ns, attr
# struct fuse_entry_out: nodeid, generation, entry_valid, attr_valid, their ns, attr
ENTRY_OUT = struct.Struct("<QQQQII" + _ATTR)
DIRENT = struct.Struct("<QQII")  # struct fuse_dirent: ino, off (of the next), namelen, type (then the name)
DIRENTPLUS = struct.Struct("<QQQQII" + _ATTR + "QQII")  # struct fuse_direntplus: entry_out, dirent
# struct fuse_kstatfs: blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, spare[6]
STATFS_OUT = struct.Struct("<QQQQQIII28x")
_STORE_OUT = struct.Struct("<IiQQQI4x")  # fuse_out_header, struct fuse_notify_store_out: nodeid, offset, size
STORE_BYTES = _STORE_OUT.size

# "There is no such name, and there never will be": node 0 with a lifetime.
NEGATIVE_ENTRY = ENTRY_OUT.pack(0, 0, FOREVER_S, 0, 0, 0, *[0] * 16)
RESEND = OUT_HEADER.pack(OUT_HEADER_BYTES, NOTIFY_RESEND, 0)

PADDING = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")  # by length % 8


def init_flags(request: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """Return (major, minor, flags of all 64 bits) of an INIT request, its header included."""
    major, minor, _, flags = _INIT_IN.unpack_from(request, HEADER_BYTES)
    if flags & _INIT_EXT:
        flags |= _INIT_IN_EXT.unpack_from(request, _INIT_EXT_OFFSET)[0] << 32
    return major, minor, flags


def init_answer(flags: int, also: int = 0) -> bytes:
    """Return the answer to an INIT that offered *flags*: of these, what a read-only server wants, and *also*."""
    flags &= _WANTED | also
    return _INIT_OUT.pack(
        KERNEL_MAJOR, KERNEL_MINOR, READAHEAD_BYTES, flags & 0xFFFFFFFF, _BACKGROUND_MAX, _BACKGROUND_CONGESTED,
        PAGE_BYTES, 1, READ_BYTES_MAX // PAGE_BYTES, 0, flags >> 32,
    )  # fmt: skip


def directory_entry(number: int, following: int, mode: int, name: bytes) -> bytes:
    """Return one record of a READDIR answer; *following* is the offset at which the listing goes on after it."""
    return DIRENT.pack(number, following, len(name), mode >> 12) + name + PADDING[len(name) & 7]


def directory_entry_unknown(number: int, following: int, mode: int, name: bytes) -> bytes:
    """Return one record of a READDIRPLUS answer that says nothing of the node, as "." and ".." are given."""
    return bytes(ENTRY_OUT.size) + directory_entry(number, following, mode, name)


def store_header(number: int, offset: int, size_bytes: int) -> bytes:
    """Return what precedes the bytes of a FUSE_NOTIFY_STORE message."""
    return _STORE_OUT.pack(STORE_BYTES + size_bytes, NOTIFY_STORE, 0, number, offset, size_bytes)


def xattr_list(names: Iterable[bytes]) -> bytes:
    """Return the names as listxattr(2) wants them: each with a NUL behind it."""
    return b"".join(name + b"\0" for name in names)
