"""A real FTP server on loopback, in a process of its own, and the plugin as it would be installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGIN = Path(__file__).parent / "plugin_labftp"

SERVER = """
import logging, sys, threading, warnings
warnings.simplefilter("ignore")  # of modules of Python that go in 3.12
logging.disable()
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

class Handler(FTPHandler):
    authorizer = DummyAuthorizer()
    use_sendfile = False

Handler.authorizer.add_user("lab", "secret", sys.argv[1], perm="elradfmwMT")
server = FTPServer(("127.0.0.1", 0), Handler)
print(server.socket.getsockname()[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""


@contextmanager
def ftp_server(root: Path) -> Iterator[str]:
    """Serve *root*; give "host:port"."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", SERVER, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.stdin.close()
            server.wait(timeout=20)


def install(site: Path) -> Path:
    """Make *site* what pip would make of the plugin: the package, and its entry points."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    site.mkdir()
    (site / project["name"]).symlink_to(PLUGIN / project["name"])
    info = site / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {where}" for name, where in entries.items())])
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    return site
