"""Runs the benchmarks and prints each figure beside what is wanted of it.

usage: python benchmarks/run.py [--only TEXT] [--json FILE]      (root, /dev/fuse, 4 GiB of disk)

These are no tests: machines are shared, and only the ratios mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import comparing, files, mounts, reading, serving, versions

PAGES = {
    "reading": reading.figures,
    "mounts": mounts.figures,
    "versions": versions.figures,
    "serving": serving.figures,
    "comparing": comparing.figures,
    "files": files.figures,
}


def main() -> None:
    """Run what was asked for, print as it comes, and keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(PAGES), action="append", help="a page of figures (default: all)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory(prefix="volume-bench-") as home:
        os.environ["VOLUME_STATE_DIR"] = f"{home}/state"
        for page in options.only or PAGES:
            for figure in PAGES[page](Path(home)):
                found.append(figure)
                sign = "<=" if figure.lower_is_better else ">="
                verdict = "" if figure.is_met else "   <- missed"
                print(
                    f"{figure.name:44} {figure.value:10.2f} {figure.unit:8} wanted {sign} {figure.wanted:g}  "
                    f"{figure.detail}{verdict}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps([figure._asdict() for figure in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
