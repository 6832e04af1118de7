"""The application as the plugin mounts it: imported with the first request.

Plugins are loaded in every task's process, and to import FastAPI with Airflow's security takes a second and more.

Always true: to import this module imports neither.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LazyApplication:
    """An ASGI application that is made by `module:function` when it is first asked for something."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._made: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer as the application does."""
        if self._made is None:  # in a thread: a second is long for a server's loop
            await asyncio.to_thread(self._make)
        await self._made(scope, receive, send)

    def _make(self) -> None:
        with self._lock:
            if self._made is None:
                module, _, name = self._place.partition(":")
                self._made = getattr(importlib.import_module(module), name)()


app = LazyApplication("volume_airflow.web.application:make")
