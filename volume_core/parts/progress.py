"""How far a commit is: for whoever watches one that takes long.

    scan ──> total_bytes      read, cut, found in the store or uploaded ──> done_bytes

Always true:

  1. Bytes count as done when they need nothing more: they are in the store, or were there before.  So done_bytes
     never runs ahead of the store, and where a commit ends well it reaches total_bytes.
  2. total_bytes is what the scans found to be read; it grows where something is read again because it moved.
  3. Nothing is counted for a watcher alone: to ask, from any thread and as often as wanted, slows no commit down.
"""

from __future__ import annotations

import threading

from volume_core.parts.packing import Packer


class Progress:
    """One commit of the volume called `volume`: from before its first scan until `wait` returns True."""

    def __init__(self, volume: str = "") -> None:
        self.volume = volume
        self._total_bytes = 0
        self._packer: Packer | None = None
        self._ended = threading.Event()

    def __repr__(self) -> str:
        return f"Progress({self.volume!r}, {self.done_bytes} of {self.total_bytes} bytes)"

    @property
    def total_bytes(self) -> int:
        """How many bytes of files' contents there are to be read; 0 until the first scan has ended."""
        return self._total_bytes

    @property
    def done_bytes(self) -> int:
        """How many of them are in the store."""
        done = self._packer.settled_bytes if self._packer is not None else 0
        return min(done, self._total_bytes)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the commit has ended, well or not, and return True; False when *timeout_s* has passed."""
        return self._ended.wait(timeout_s)

    # -- told by the commit

    def watch(self, packer: Packer) -> None:
        """From now on what *packer* does counts."""
        self._packer = packer

    def expect(self, count_bytes: int) -> None:
        """So many bytes are to be read, besides those that were."""
        self._total_bytes += count_bytes

    def end(self) -> None:
        """The commit has ended."""
        self._ended.set()
