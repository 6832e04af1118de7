"""What the tests of files share: a directory with what copies are apt to lose, and how it looks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from volume_core import ROVolume, Volume


def rich_tree(root: Path) -> Path:
    """Make *root* a directory with modes, links and an empty directory, and return it."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "run.sh").write_text("#!/bin/sh\n")
    (root / "bin" / "run.sh").chmod(0o755)
    (root / "plain").write_text("plain")
    (root / "private").write_text("private")
    (root / "private").chmod(0o400)
    (root / "empty").mkdir()
    (root / "to_file").symlink_to("bin/run.sh")
    (root / "to_directory").symlink_to("bin")
    (root / "nowhere").symlink_to("nothing/there")
    os.link(root / "plain", root / "again")
    return root


def made(name: str, tree: Path) -> ROVolume:
    """The head of the volume *name*, which holds what is in *tree*."""
    volume = Volume.from_name_sync(name, create_if_missing=True)
    with volume.batch_upload_sync() as batch:
        batch.put_directory(tree, "/")
    return batch.version


def shown(root: Path) -> dict[str, str]:
    """What lies below *root*, by path, and how."""
    found = {}
    for above, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(above) / name
            status = path.lstat()
            mode = f"{stat.S_IMODE(status.st_mode):o}"
            if path.is_symlink():
                text = f"link to {os.readlink(path)}"
            elif path.is_dir():
                text = f"directory {mode}"
            else:
                linked = f" {status.st_nlink} names" if status.st_nlink > 1 else ""
                text = f"file {mode}{linked}: {path.read_text()}"
            found[str(path.relative_to(root))] = text
    return found
