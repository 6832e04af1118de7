"""A process that takes a volume's lock, and says so; run by test_leases.py.

    python lock_holder.py STORE_DIRECTORY LIFETIME_S CLOCK_OFFSET_S

It prints {"token": ...}, waits for a line, then checks its lock and moves the head, and prints {"moved": ...}
or {"error": ...}; then it waits for another line and ends.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from heads_kit import VOLUME, version

from volume_core.errors import ConflictError
from volume_core.parts.heads import move_head, read_head
from volume_core.parts.leases import HeldLease
from volume_core.storage.local import LocalStore


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)


def main(directory: str, lifetime_s: str, offset_s: str) -> None:
    store = LocalStore(Path(directory))
    offset_ns = int(offset_s) * 10**9
    with HeldLease(store, VOLUME, lifetime_s=int(lifetime_s), clock=lambda: time.time_ns() + offset_ns) as lease:
        lease.acquire(0)
        say(token=lease.token)
        sys.stdin.readline()
        try:
            lease.check()
            head = read_head(store, VOLUME)
            say(moved=move_head(store, VOLUME, head, version(store), "commit", token=lease.token).version)
        except ConflictError as error:
            say(error=str(error))
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
