"""What an S3 server answers to one request, without any network: values in, values out.

The part of the protocol that volumes use, spelled as Amazon spells it (tests compare it call by call
with another server), and what Google's XML interface adds: generations.  Buckets: make, look,
remove, list (version 2).  Objects: put, get, head, delete, with conditions and ranges.

Always true: one answer is computed in one step of one thread, so conditions are atomic.
"""

from __future__ import annotations

import bisect
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import parse_qsl, quote, unquote
from xml.sax.saxutils import escape

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{2,62}")
_PAGE = 1000
XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass(slots=True)
class Request:
    """One request: *path* still percent-encoded, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def bucket(self) -> str:
        """The first part of the path; "" for the list of buckets."""
        return unquote(self.path.removeprefix("/").partition("/")[0])

    @property
    def key(self) -> str:
        """The rest of the path; "" for the bucket itself."""
        return unquote(self.path.removeprefix("/").partition("/")[2])

    @property
    def parameters(self) -> dict[str, str]:
        """The query, decoded."""
        return dict(parse_qsl(self.query, keep_blank_values=True))


@dataclass(slots=True)
class Answer:
    """One answer.  `code` is S3's name of an error, "" for none."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """One object: its bytes, when it was written (the server's count of requests, and the clock), its generation."""

    data: bytes
    etag: str
    written_at: int
    modified_s: float
    generation: int


@dataclass(slots=True)
class Bucket:
    """The objects of one bucket, their sorted names, and what was deleted when."""

    objects: dict[str, Stored] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    deleted: dict[str, tuple[Stored, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Manners:
    """How a server misbehaves on purpose."""

    ignore_conditions: bool = False
    ignore_ranges: bool = False
    # Listings show the objects as they were this many requests ago.
    stale_requests: int = 0


class Buckets:
    """All buckets of one server."""

    def __init__(self, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        self.buckets: dict[str, Bucket] = {}
        self._requests = 0
        self._generation = int(time.time() * 1e6)

    def answer(self, request: Request) -> Answer:
        """Carry *request* out and return what a server says."""
        self._requests += 1
        bucket = self.buckets.get(request.bucket)
        if request.key:
            if bucket is None:
                return error(404, "NoSuchBucket", "The specified bucket does not exist", request)
            calls: Mapping[str, Callable[[Request, Bucket], Answer]] = {
                "PUT": self._put,
                "GET": self._get,
                "HEAD": self._get,
                "DELETE": self._delete,
            }
            call = calls.get(request.method)
            if call is None or request.query:
                return error(501, "NotImplemented", "This server does not know that", request)
            return call(request, bucket)
        return self._bucket(request, bucket)

    def _bucket(self, request: Request, bucket: Bucket | None) -> Answer:
        if request.method == "PUT":
            return self._make_bucket(request)
        if bucket is None:
            return error(404, "NoSuchBucket", "The specified bucket does not exist", request)
        if request.method == "DELETE":
            if bucket.objects:
                return error(409, "BucketNotEmpty", "The bucket you tried to delete is not empty", request)
            del self.buckets[request.bucket]
            return Answer(204)
        if request.method == "HEAD":
            return Answer(200)
        if request.method == "GET" and request.parameters.get("list-type") == "2":
            return self._list(request, bucket)
        return error(501, "NotImplemented", "This server does not know that", request)

    def _make_bucket(self, request: Request) -> Answer:
        if not _BUCKET.fullmatch(request.bucket):
            return error(400, "InvalidBucketName", "The specified bucket is not valid.", request)
        self.buckets.setdefault(request.bucket, Bucket())
        return Answer(200, {"Location": f"/{request.bucket}"})

    def _put(self, request: Request, bucket: Bucket) -> Answer:
        there = bucket.objects.get(request.key)
        if not self.manners.ignore_conditions and (refusal := _put_refusal(request, there)):
            return refusal
        self._generation += 1
        etag = f'"{hashlib.md5(request.body, usedforsecurity=False).hexdigest()}"'
        stored = Stored(request.body, etag, self._requests, time.time(), self._generation)
        bucket.objects[request.key] = stored
        bucket.deleted.pop(request.key, None)
        if there is None:
            bisect.insort(bucket.keys, request.key)
        return Answer(200, {"ETag": etag, "x-goog-generation": str(stored.generation)})

    def _get(self, request: Request, bucket: Bucket) -> Answer:
        there = bucket.objects.get(request.key)
        if there is None:
            return error(404, "NoSuchKey", "The specified key does not exist.", request)
        headers = {
            "ETag": there.etag,
            "Last-Modified": formatdate(there.modified_s, usegmt=True),
            "Content-Type": "binary/octet-stream",
            "Accept-Ranges": "bytes",
            "x-goog-generation": str(there.generation),
        }
        if refusal := _get_refusal(request, there):
            return refusal
        asked = _RANGE.fullmatch(request.headers.get("range", ""))
        if not asked or self.manners.ignore_ranges or not (asked[1] or asked[2]):
            return Answer(200, headers, there.data)
        return _part(request, there, asked[1], asked[2], headers)

    def _delete(self, request: Request, bucket: Bucket) -> Answer:
        there = bucket.objects.pop(request.key, None)
        if there is not None:
            bucket.deleted[request.key] = (there, self._requests)
            bucket.keys.pop(bisect.bisect_left(bucket.keys, request.key))
        return Answer(204)

    def _list(self, request: Request, bucket: Bucket) -> Answer:
        wanted = request.parameters
        page_keys = min(int(wanted.get("max-keys", _PAGE)), _PAGE)
        after = unquote(wanted.get("continuation-token", "")) or wanted.get("start-after", "")
        found = list(self._shown(bucket, wanted.get("prefix", ""), after, wanted.get("delimiter", ""), page_keys + 1))
        page, more = found[:page_keys], len(found) > page_keys
        url = wanted.get("encoding-type") == "url"
        parts = [f"<Name>{escape(request.bucket)}</Name>", f"<KeyCount>{len(page)}</KeyCount>"]
        parts += [f"<Prefix>{_spelled(wanted.get('prefix', ''), url)}</Prefix><MaxKeys>{page_keys}</MaxKeys>"]
        parts += ["<EncodingType>url</EncodingType>"] if url else []
        parts += [f"<IsTruncated>{str(more).lower()}</IsTruncated>"]
        if more:
            parts.append(f"<NextContinuationToken>{quote(page[-1][0], safe='')}</NextContinuationToken>")
        parts += [_listed(key, stored, url) for key, stored in page]
        body = f"{XML_HEAD}<ListBucketResult {_NAMESPACE}>{''.join(parts)}</ListBucketResult>"
        return Answer(200, {"Content-Type": "application/xml"}, body.encode())

    def _shown(
        self, bucket: Bucket, prefix: str, after: str, delimiter: str, limit: int
    ) -> Iterator[tuple[str, Stored | None]]:
        """Yield at most *limit* names (with None: folders) beginning with *prefix* that come after *after*."""
        keys, objects = self._as_listed(bucket)
        at = bisect.bisect_left(keys, max(prefix, after))
        given = 0
        while at < len(keys) and given < limit and keys[at].startswith(prefix):
            key = keys[at]
            at += 1
            if key <= after or (delimiter and after.endswith(delimiter) and key.startswith(after)):
                continue
            folder, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            if found:
                folder = prefix + folder + delimiter
                yield folder, None
                # Everything below the folder is that one line.
                at = bisect.bisect_left(keys, folder[:-1] + chr(ord(folder[-1]) + 1), at)
            else:
                yield key, objects[key]
            given += 1

    def _as_listed(self, bucket: Bucket) -> tuple[list[str], dict[str, Stored]]:
        if not self.manners.stale_requests:
            return bucket.keys, bucket.objects
        then = self._requests - self.manners.stale_requests
        shown = {key: stored for key, stored in bucket.objects.items() if stored.written_at <= then}
        shown |= {
            key: stored
            for key, (stored, deleted_at) in bucket.deleted.items()
            if stored.written_at <= then < deleted_at
        }
        return sorted(shown), shown


def error(status: int, code: str, message: str, request: Request, more: str = "") -> Answer:
    """Return an error as S3 spells it; to a HEAD there is no body."""
    body = f"{XML_HEAD}<Error><Code>{code}</Code><Message>{escape(message)}</Message>{more}</Error>"
    sent = b"" if request.method == "HEAD" else body.encode()
    return Answer(status, {"Content-Type": "application/xml"}, sent, code)


def _put_refusal(request: Request, there: Stored | None) -> Answer | None:
    failed = "At least one of the pre-conditions you specified did not hold"
    expected = request.headers.get("if-match")
    if expected is not None and there is None:
        return error(404, "NoSuchKey", "The specified key does not exist.", request)
    generation = request.headers.get("x-goog-if-generation-match")
    taken = request.headers.get("if-none-match") == "*" and there is not None
    other = expected is not None and there is not None and expected.strip('"') != there.etag.strip('"')
    moved = generation is not None and int(generation) != (there.generation if there else 0)
    return error(412, "PreconditionFailed", failed, request) if taken or other or moved else None


def _get_refusal(request: Request, there: Stored) -> Answer | None:
    expected = request.headers.get("if-match")
    if expected is not None and expected.strip('"') != there.etag.strip('"'):
        message = "At least one of the pre-conditions you specified did not hold"
        return error(412, "PreconditionFailed", message, request)
    if request.headers.get("if-none-match", "").strip('"') == there.etag.strip('"'):
        return Answer(304, {"ETag": there.etag})
    return None


def _part(request: Request, there: Stored, first: str, last: str, headers: dict[str, str]) -> Answer:
    size = len(there.data)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1 if first and last else size, size)
    if not first and int(last) > 0 and size == 0:
        # The last bytes of nothing are nothing, which no Content-Range can say.
        return Answer(200, headers, b"")
    if start >= size or (not first and int(last) == 0):
        more = f"<ActualObjectSize>{size}</ActualObjectSize>"
        return error(416, "InvalidRange", "The requested range is not satisfiable", request, more)
    if start >= end:
        # A range that ends before it begins is none: the whole object is the answer.
        return Answer(200, headers, there.data)
    return Answer(206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{size}"}, there.data[start:end])


def _spelled(key: str, url: bool) -> str:
    return quote(key, safe="/") if url else escape(key)


def _listed(key: str, stored: Stored | None, url: bool) -> str:
    if stored is None:
        return f"<CommonPrefixes><Prefix>{_spelled(key, url)}</Prefix></CommonPrefixes>"
    whole = int(stored.modified_s)
    modified = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + ".000Z"
    return (
        f"<Contents><Key>{_spelled(key, url)}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>{escape(stored.etag, {chr(34): '&quot;'})}</ETag><Size>{len(stored.data)}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )
