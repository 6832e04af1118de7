"""A supervisor's door: one question and one answer, each a line of JSON, over a socket in the mount's directory.

    {"command": "unmount", "lazy": bool}   -> {}
    {"command": "status"}                  -> {"restarts": int, "broken": str | None, "server": pid | None}
    an error                               -> {"error": KIND, "message": str, "paths": [str]}

KIND is BusyError, PathTakenError or MountError.

Always true: the socket lies in a directory that only its owner may enter; a socket's address holds 107 bytes,
so it is named through a descriptor of the directory, however long its path.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

from volume_core.errors import BusyError, MountError, VolumeError
from volume_core.mount.claiming import PathTakenError
from volume_core.mount.plans import CONTROL

ASK_TIMEOUT_S = 120.0  # an unmount writes back what fuse-overlayfs has in memory
LINE_BYTES_MAX = 1 << 20
CLIENT_TIMEOUT_S = 5.0  # for a whole question, which its asker sends at once


def listen(directory: str) -> socket.socket:
    """Open the door in *directory*."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(directory) as address:
            door.bind(address)
        door.listen()
    except BaseException:
        door.close()
        raise
    return door


def ask(directory: str, question: dict[str, Any]) -> dict[str, Any]:
    """Return a supervisor's answer.

    Raises the error it answers with; ConnectionError or FileNotFoundError where there is no supervisor.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(ASK_TIMEOUT_S)
        with _address(directory) as address:
            door.connect(address)
        try:
            send(door, question)
            answer = receive(door)
        except TimeoutError as error:
            raise MountError(f"the supervisor of {directory} did not answer within {ASK_TIMEOUT_S:g} s") from error
    raise_error(answer)
    return answer


def serve(door: socket.socket, respond: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer one question.  An asker that says nothing or goes away costs nothing but its time-out."""
    asker, _ = door.accept()
    with asker, contextlib.suppress(OSError, ValueError):
        asker.settimeout(CLIENT_TIMEOUT_S)
        question = receive(asker)
        try:
            answer = respond(question)
        except (VolumeError, OSError) as error:
            answer = error_fields(error)
        send(asker, answer)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one line."""
    connection.sendall(json.dumps(message).encode("ascii") + b"\n")


def receive(connection: socket.socket) -> dict[str, Any]:
    """Receive one line.  Raises ConnectionError if the other side goes away, ValueError if it is no JSON object."""
    line = bytearray()
    while not line.endswith(b"\n"):
        if len(line) > LINE_BYTES_MAX:
            raise ValueError("a line that is too long")
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("the other side is gone")
        line += received
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("no JSON object")
    return message


def error_fields(error: Exception) -> dict[str, Any]:
    """Return *error* as an answer."""
    if isinstance(error, BusyError):
        return {"error": "BusyError", "message": str(error), "paths": error.paths}
    kind = "PathTakenError" if isinstance(error, PathTakenError) else "MountError"
    return {"error": kind, "message": str(error), "paths": []}


def raise_error(answer: dict[str, Any]) -> None:
    """Raise the error that *answer* holds, if it does."""
    if answer.get("error") == "BusyError":
        raise BusyError(answer["message"], answer["paths"])
    if answer.get("error") == "PathTakenError":
        raise PathTakenError(answer["message"])
    if "error" in answer:
        raise MountError(answer["message"])


@contextlib.contextmanager
def _address(directory: str) -> Iterator[str]:
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{CONTROL}"
    finally:
        os.close(fd)
