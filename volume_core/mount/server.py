"""The process that answers the kernel for one mounted version: `python -m volume_core.mount.server CONFIG`.

CONFIG is the path of a JSON file, or the number of an inherited descriptor to read it from:

    fuse_fd            the /dev/fuse descriptor of the mount, inherited
    layers             paths of the verified layer indexes, oldest first
    store, region      URL of the store that has the packs, and its region where one was given
    cache_dir          where fetched windows of packs are kept; left out: a few in memory
    cache_limit_bytes  and how much of them (default 10 GiB)
    used_bytes, inode_count   what statfs tells
    resend             true: a server before this one may have died with requests in its hands; ask for them again
    acls               true: the kernel checks modes here, and is to check access lists as well
    links              false: each name of a hard linked file is shown as a file by itself
    push               false: never push neighbours into the page cache (default true)

    one thread, the loop:    read a request -> answer it from the layers, memory, the local cache
    threads of fetching.py:  answer what the store must be asked for
    a child, pushing.py:     puts the files that will be read next into the page cache

Always true:

  1. The loop never waits for a store or for the page cache.
  2. Nothing here outlives a request but caches: kill -9 at any point loses no more than the requests in hand,
     which the next server asks the kernel for again.
  3. The process ends when the mount does (ENODEV), with 0.  It ends with EXIT_NO_RESEND where `resend` was asked of
     a kernel that cannot (before 6.9): then only aborting the connection frees who waits.
"""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from volume_core.mount import protocol as fuse
from volume_core.mount.fetching import Complaints, Fetchers, answer, refuse
from volume_core.mount.inbox import ENDED, Inbox
from volume_core.mount.pushing import start as start_pusher
from volume_core.mount.requests import Fetch, Refused, Requests, Totals
from volume_core.mount.supply import Supply
from volume_core.parts.indexes import open_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volume_core.domain.view import Node
    from volume_core.storage.protocol import Store

log = logging.getLogger(__name__)

EXIT_NO_RESEND = 3
_CACHE_LIMIT_BYTES = 10 << 30
# Threads here mostly wait for the kernel or a store: while one computes, the loop waits for it so long at most.
_SWITCH_S = 0.0005


class Config(NamedTuple):
    """What a server is told; see the head of this file."""

    fuse_fd: int
    layers: tuple[Path, ...]
    store: str
    region: str | None = None
    cache_dir: Path | None = None
    cache_limit_bytes: int = _CACHE_LIMIT_BYTES
    used_bytes: int = 0
    inode_count: int = 0
    resend: bool = False
    acls: bool = False
    links: bool = True
    push: bool = True

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Decode a configuration.  Raises TypeError for a key that is not known or not there."""
        fields: dict[str, Any] = json.loads(text)
        fields["layers"] = tuple(map(Path, fields["layers"]))
        if fields.get("cache_dir") is not None:
            fields["cache_dir"] = Path(fields["cache_dir"])
        return cls(**fields)


def serve(inbox: Inbox, requests: Requests, fetchers: Fetchers, complaints: Complaints) -> None:
    """Answer what comes into *inbox* until it is unmounted."""
    fd, buffer, receive = inbox.fd, inbox.buffer, inbox.receive
    unpack, handlers, opcodes_max = fuse.IN_HEADER.unpack_from, requests.handlers, fuse.OPCODES_MAX
    unknown = handlers[0]
    while length := receive():
        opcode, unique, number = unpack(buffer)
        try:
            found = (handlers[opcode] if opcode < opcodes_max else unknown)(number, buffer, length)
        except Refused as refused:
            refuse(fd, unique, refused.number)
        except Exception as error:
            # A bug or a damaged index must cost one request, not the mount.
            refuse(fd, unique, complaints.errno_of(error, b"node %d" % number))
        else:
            if isinstance(found, bytes):
                answer(fd, unique, found)
            elif isinstance(found, Fetch):
                fetchers.submit(unique, found)
            elif found is not None:
                fetchers.interrupt(found.unique)


def ask_again(fd: int) -> bool:
    """Have the kernel send again what a server before this one left unanswered; False if it cannot."""
    try:
        os.write(fd, fuse.RESEND)
    except OSError as error:
        if error.errno not in (errno.EINVAL, *ENDED):
            raise
        return error.errno in ENDED  # then there is nothing to ask for
    return True


def open_any(url: str, region: str | None = None) -> Store:
    """Return the store at *url*, in *region* where one was given, whoever brings its scheme."""
    from volume_core.storage.opening import BUILTIN_SCHEMES, open_store

    options = {"region": region} if region else {}
    if url.partition("://")[0] in BUILTIN_SCHEMES:
        return open_store(url, options)
    from volume_core.plugins.manager import plugins

    return plugins().open_store(url, options)


def run(config: Config) -> int:
    """Serve one mount until it is gone; return the process's exit status."""
    fd = config.fuse_fd
    is_local = config.store.startswith("file:")
    supply = Supply(lambda: open_any(config.store, config.region), is_local, config.cache_dir, config.cache_limit_bytes)
    opened = functools.partial(open_view, config.layers, links=config.links)
    started = start_pusher(fd, opened, supply.read_neighbours) if config.push else None

    def touched(node: Node) -> None:
        if started is not None and started.touches.touched(node):
            inbox.yield_cpu()

    totals = Totals(config.used_bytes, config.inode_count)
    requests = Requests(opened(), totals, supply.read_local, touched if started else None, config.acls)
    inbox = Inbox(fd, requests.prepare)
    complaints = Complaints()
    if config.resend and not ask_again(fd):
        log.error("this kernel (before 6.9) cannot resend the requests that the server before this one left")
        return EXIT_NO_RESEND
    serve(inbox, requests, Fetchers(fd, supply.read, complaints), complaints)
    if started is not None:
        started.stop()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as the configuration named by the one argument says."""
    (source,) = sys.argv[1:] if argv is None else argv
    with open(int(source) if source.isdigit() else source, encoding="utf-8") as file:
        config = Config.from_json(file.read())
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    # The terminal's Ctrl-C is for who uses the mount; the server goes when the mount does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(_SWITCH_S)
    return run(config)


if __name__ == "__main__":
    code = 1
    try:
        code = main()
    except Exception:
        log.exception("the server of a mount ends")
    finally:
        sys.stderr.flush()
        # Threads may wait for a store that never answers: the mount is gone, nobody waits for them.
        os._exit(code)
