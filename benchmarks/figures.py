"""How the benchmarks measure: ours and the baseline in turn, in one run, told as a ratio.

Always true: no figure is a time of its own where a baseline exists, for machines are shared and their
speed drifts; a ratio is the median of the ratios of neighbouring pairs.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the report.  `value` is better the higher it is, unless `lower_is_better`."""

    name: str
    value: float
    wanted: float
    unit: str
    detail: str
    lower_is_better: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the wanted value was reached."""
        return self.value <= self.wanted if self.lower_is_better else self.value >= self.wanted


def seconds(work: Callable[[], object]) -> float:
    """How long *work* takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speed(
    name: str,
    wanted: float,
    ours: Callable[[], float],
    baseline: Callable[[], float],
    rounds: int = 5,
) -> Figure:
    """Our speed as a part of the baseline's: each callable does the work once and returns its seconds."""
    pairs = [(ours(), baseline()) for _ in range(rounds)]
    ratio = statistics.median(base / our for our, base in pairs)
    detail = f"{statistics.median(p[0] for p in pairs):.3f} s against {statistics.median(p[1] for p in pairs):.3f} s"
    return Figure(name, ratio, wanted, "x", detail)


def forget_cached_names() -> None:
    """Have the kernel drop dentries and inodes that nobody uses (root)."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("2")


def make_files(root: Path, count: int, size_bytes: int = 4096, per_directory: int = 500) -> None:
    """Write *count* files of *size_bytes*, each with its own content."""
    block = os.urandom(size_bytes)
    for number in range(count):
        directory = root / f"d{number // per_directory:04d}"
        if number % per_directory == 0:
            directory.mkdir()
        with open(directory / f"f{number:06d}", "wb", buffering=0) as file:
            file.write(number.to_bytes(8, "big") + block[8:])


def walk(root: Path) -> int:
    """Stat everything below *root*; return how many names there are."""
    found = 0
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            os.lstat(f"{directory}/{name}")
            found += 1
    return found


def read_small(root: Path) -> int:
    """Read every file below *root* in the order of the listings; return the bytes."""
    total = 0
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            fd = os.open(f"{directory}/{name}", os.O_RDONLY)
            total += len(os.read(fd, 1 << 20))
            os.close(fd)
    return total


def read_through(path: Path) -> int:
    """Read one file from its beginning to its end; return the bytes."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            total += len(data)
    return total
