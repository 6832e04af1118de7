"""A container's entry point, for many tasks: `python v1_container.py jobs.json` runs each as `pyflyte-execute` would.

Why not one process a task: to import flytekit takes longer than everything that is tested here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flytekit.bin import entrypoint


def main() -> None:
    """Run the jobs: lists of the command's name and its arguments."""
    for command, *arguments in json.loads(Path(sys.argv[1]).read_text()):
        entrypoint._pass_through([command, *arguments], standalone_mode=False)


if __name__ == "__main__":
    main()
