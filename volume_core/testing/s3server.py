"""An S3 server in this process whose failures are chosen: for speed, for faults, for bad manners.

    with S3Server() as server:
        server.make_bucket("b")
        os.environ["AWS_ENDPOINT_URL"] = server.endpoint

What can go wrong is in `Faults`, drawn from one seeded source of chance so that a run can be had
again, or named request by request in `server.plan`.  It speaks to S3 clients and to Google's
(which use the same XML); it checks who asks (access key, region) but no signatures.

Always true: an effect happens whole or not at all, before or after the line is cut, never in between.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Literal, Self

from volume_core.testing.s3objects import Answer, Bucket, Buckets, Manners, Request, error

Fault = Literal["", "slow_down", "internal_error", "cut_before", "cut_after", "cut_body"]
_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/[^/]+/(?P<region>[^/]+)/")
_BUFFER_BYTES = 64 << 20
_REASONS: Final = {200: "OK", 204: "No Content", 206: "Partial Content", 304: "Not Modified"}


@dataclass(slots=True)
class Faults:
    """What goes wrong and how often: the chances are of each request and add up to at most 1.

    `latency_s` is the least and the greatest wait before a request is looked at; `bytes_per_s` caps
    all bodies together; above `requests_per_s` requests are answered 503 SlowDown.
    """

    seed: int = 0
    latency_s: tuple[float, float] = (0.0, 0.0)
    bytes_per_s: float | None = None
    requests_per_s: float | None = None
    slow_down: float = 0.0
    internal_error: float = 0.0
    cut_before: float = 0.0
    cut_after: float = 0.0
    cut_body: float = 0.0
    manners: Manners = field(default_factory=Manners)


class S3Server:
    """The server; it listens from `start` (or `with`) to `stop`.

    `plan` is a queue of what befalls the next requests ("" for nothing) and goes before the chances.
    `seen` counts requests by method, `failed` by fault.
    """

    def __init__(
        self, faults: Faults | None = None, *, access_key: str | None = None, region: str | None = None
    ) -> None:
        self.faults = faults or Faults()
        self.plan: deque[Fault] = deque()
        self.seen: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.endpoint = ""
        self._access_key = access_key
        self._region = region
        self._store = Buckets(self.faults.manners)
        self._random = random.Random(self.faults.seed)
        self._line_free_s = 0.0
        self._allowance = self.faults.requests_per_s or 0.0
        self._allowance_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="s3-server", daemon=True)
        self._ready = threading.Event()
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Listen on a free port of the loopback; `endpoint` is then the server's URL."""
        self._thread.start()
        if not self._ready.wait(10):
            raise TimeoutError("the S3 server did not start within 10 s")
        return self

    def stop(self) -> None:
        """Close every connection and end the server's thread."""
        assert self._stopping is not None, "the server was never started"
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def make_bucket(self, name: str) -> Bucket:
        """Make a bucket; return its inside, for looking with another eye."""
        return self._store.buckets.setdefault(name, Bucket())

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=_BUFFER_BYTES)
        host, port = server.sockets[0].getsockname()[:2]
        self.endpoint = f"http://{host}:{port}"
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader, writer)) and await self._handle(request, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _handle(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        self.seen[request.method] += 1
        least_s, greatest_s = self.faults.latency_s
        if greatest_s:
            await asyncio.sleep(self._random.uniform(least_s, greatest_s))
        await self._carry(len(request.body))
        fault = self._fault()
        if fault:
            self.failed[fault] += 1
        if fault == "cut_before":
            return False
        answer = self._refusal(request, fault) or self._store.answer(request)
        if fault == "cut_after":
            return False
        await self._carry(len(answer.body))
        return await self._send(request, answer, writer, cut=fault == "cut_body")

    def _refusal(self, request: Request, fault: Fault) -> Answer | None:
        if fault == "slow_down" or not self._allowed():
            return error(503, "SlowDown", "Please reduce your request rate.", request)
        if fault == "internal_error":
            return error(500, "InternalError", "We encountered an internal error. Please try again.", request)
        return self._stranger(request)

    def _stranger(self, request: Request) -> Answer | None:
        """Return the refusal of a caller with another key or region, or None."""
        said = _CREDENTIAL.search(request.headers.get("authorization", ""))
        if self._access_key is not None:
            if said is None:
                return error(403, "AccessDenied", "Access Denied", request)
            if said["key"] != self._access_key:
                message = "The AWS Access Key Id you provided does not exist in our records."
                return error(403, "InvalidAccessKeyId", message, request)
        if self._region is not None and said is not None and said["region"] != self._region:
            message = f"The authorization header is malformed; the region '{said['region']}' is wrong"
            return error(400, "AuthorizationHeaderMalformed", message, request, f"<Region>{self._region}</Region>")
        return None

    def _fault(self) -> Fault:
        if self.plan:
            return self.plan.popleft()
        drawn = self._random.random()
        faults: tuple[Fault, ...] = ("slow_down", "internal_error", "cut_before", "cut_after", "cut_body")
        for fault in faults:
            drawn -= getattr(self.faults, fault)
            if drawn < 0:
                return fault
        return ""

    def _allowed(self) -> bool:
        """Take one request from the allowance, which fills with time up to one second's worth."""
        rate = self.faults.requests_per_s
        if rate is None:
            return True
        now_s = self._loop.time()
        self._allowance = min(rate, self._allowance + (now_s - self._allowance_s) * rate)
        self._allowance_s = now_s
        if self._allowance < 1:
            self.failed["throttled"] += 1
            return False
        self._allowance -= 1
        return True

    async def _carry(self, size_bytes: int) -> None:
        """Wait until *size_bytes* have gone over the one line that all share."""
        if self.faults.bytes_per_s and size_bytes:
            now_s = self._loop.time()
            self._line_free_s = max(now_s, self._line_free_s) + size_bytes / self.faults.bytes_per_s
            await asyncio.sleep(self._line_free_s - now_s)

    async def _send(self, request: Request, answer: Answer, writer: asyncio.StreamWriter, cut: bool) -> bool:
        writer.write(_head(answer))
        body = b"" if request.method == "HEAD" else answer.body
        writer.write(body[: len(body) // 2] if cut else body)
        await writer.drain()
        if cut:
            # What is still in the buffer must arrive, or the answer would be cut at another place each time.
            writer.close()
            await writer.wait_closed()
        return not cut and request.headers.get("connection", "").lower() != "close"


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """Read one request; None when the client has hung up between two."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    path, _, query = target.partition("?")
    body = await _read_body(reader, headers)
    return Request(method, path, query, headers, body)


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", 0)))
    parts = []
    while size := int((await reader.readline()).split(b";", 1)[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass
    return b"".join(parts)


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines.append(f"Content-Length: {len(answer.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
