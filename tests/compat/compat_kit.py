"""The pages for those who come from elsewhere, taken apart: programs, what they print, and the calls in tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("coming-from-*.md"))

_BLOCK = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
# Where the programs mount: directories of the root that a container has for itself, and a test has not.
_MOUNT_PATH = re.compile(r"""(?<=["'])/(?=(?:data|prices|out|runs|volumes)\b)""")


@dataclass(frozen=True)
class Program:
    """A block of ours, under its heading, and what the page says that it prints."""

    page: str
    heading: str
    text: str
    prints: str

    @property
    def id(self) -> str:
        """The name of its test."""
        return f"{self.page}-{self.heading.partition('.')[0].replace(' ', '-')}"


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return (heading, info, text) of each fenced block of *page*."""
    text = page.read_text()
    headings = [(match.start(), match[1]) for match in _HEADING.finditer(text)]
    found = []
    for match in _BLOCK.finditer(text):
        heading = [title for at, title in headings if at < match.start()][-1]
        found.append((heading, match["info"], match["text"]))
    return found


def programs() -> list[Program]:
    """Return every program of ours, of all pages."""
    found = []
    for page in PAGES:
        listed = blocks(page)
        for (heading, info, text), (_, after, prints) in zip(listed, [*listed[1:], ("", "", "")], strict=True):
            if info == "python":
                assert after == "text", f"{page.name}: {heading}: what does it print?"
                found.append(Program(page.stem, heading, text, prints))
    return found


def placed(text: str, root: Path) -> str:
    """Return a program with the directories where it mounts below *root*."""
    return _MOUNT_PATH.sub(f"{root}/", text)
