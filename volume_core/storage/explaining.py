"""The edge at which the object_store library's errors become ours.

Why by text: the library hands on what the server answered only as text, so the HTTP status and
the server's own code are read out of it, here and nowhere else.

Always true: our text is made of the status, the server's code and its message, never of the whole
answer or of a URL's query, which may hold signatures; what can be put right by somebody says what
to check.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from obstore import exceptions

from volume_core.errors import NotFoundError, StorageError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>\s*([\w.]+)\s*</Code>|\"code\"\s*:\s*\"?([\w.]+)")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 509, 529})
_TRANSIENT_CODE = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
    }
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"})
_NO_OBJECT = frozenset({"NoSuchKey", "BlobNotFound"})
_REGION = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"})
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
# What the library says when it is the line, not the server, that failed; and, in the dump of its
# insides, why.
_LINE = re.compile(r"HTTP error: |error sending request|error decoding response body|request or response body error")
_LINE_MORE = re.compile(r"connection (closed|reset|refused)|timed out|timeout|incomplete message|end of file", re.I)
_CAUSE = re.compile(
    r"failed to lookup address[^\"\\]*|InvalidCertificate\([^()]*|invalid peer certificate[^\"\\]*|TimedOut|"
    r"IncompleteMessage|(?<=message: \")[^\"]*|URL scheme is not allowed"
)
# Where it was said; a URL may hold a name and a password, or a signature.
_WHERE_AND_WHEN = re.compile(r"\s*https?://\S*|\s+in [\d.]+\s?[mµn]?s\b")
_WRONG_ADDRESS = re.compile(r"ertificate|URL scheme is not allowed")


class Answer(NamedTuple):
    """What a server answered to a request that failed; 0 and "" where it did not answer."""

    status: int
    code: str
    message: str


def answer(error: Exception) -> Answer:
    """Return what the server answered, as far as the library tells."""
    text = _shown(error)
    status = _STATUS.search(text)
    code = _CODE.search(text)
    message = _MESSAGE.search(text)
    return Answer(
        int(status[1]) if status else 0,
        (code[1] or code[2]) if code else "",
        " ".join(message[1].split("RequestId:")[0].split())[:200] if message else "",
    )


def explain(error: Exception, doing: str, url: str, where: str) -> NotFoundError | StorageError:
    """Return our error for *error*, which happened while *doing* something to the object at *url*.

    *where* says which region and endpoint were used.
    """
    found = answer(error)
    if isinstance(error, FileNotFoundError) and found.code not in _NO_BUCKET:
        return NotFoundError(f"{url}: there is no such object")
    said = f"{found.status or ''} {found.code}".strip() + (f" ({found.message})" if found.message else "")
    what = f"cannot {doing} {url} ({where}): {said or _first_line(error)}"
    if is_transient(error):
        return StorageError(what + ("" if found.status else "; check the endpoint and the network"), transient=True)
    return StorageError(f"{what}; {_advice(error, found)}")


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    found = answer(error)
    if found.code in _TRANSIENT_CODE or found.status in _TRANSIENT_STATUS:
        return True
    if found.status or _WRONG_ADDRESS.search(str(error)):
        return False
    text = _shown(error)
    return bool(_LINE.search(text) or _LINE_MORE.search(text))


def _advice(error: Exception, found: Answer) -> str:
    if found.code in _NO_BUCKET:
        return "check the bucket's name, the region and the endpoint: there is no such bucket"
    if found.code in _REGION or found.status == 301 or "redirect" in _shown(error):
        return "check the region: the bucket is in another one (set AWS_REGION)"
    if found.code in _CLOCK:
        return "check this machine's clock: the request's time is too far off"
    if "non-partial response" in _shown(error):
        return "use another server: this one answers a range request with the whole object"
    if found.status == 401 or isinstance(error, exceptions.UnauthenticatedError):
        return "check the credentials: they are missing, wrong or expired"
    if found.status == 403 or isinstance(error, exceptions.PermissionDeniedError):
        return "check the credentials and what they may do in this bucket"
    if found.status == 400 and "Token" in found.code:
        return "check the credentials: the token is wrong or expired"
    return "check the credentials, the region, the bucket and the endpoint"


def _shown(error: Exception) -> str:
    """The library's sentence, without the dump of its insides that follows."""
    return str(error).split("\n\nDebug source:", 1)[0]


def _first_line(error: Exception) -> str:
    line = _shown(error).split("\n", 1)[0]
    cause = _CAUSE.search(str(error))
    return _WHERE_AND_WHEN.sub("", line)[:300] + (f" ({cause[0]})" if cause else "")
