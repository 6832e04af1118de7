"""What stands around the fragments: the document, the way to where one is, tabs, and what a page may do.

Always true: every text went through spelling.py and html.escape; a page loads nothing, and its policy says so to the
browser by the digests of the few styles and the one script that it has: a mark-up that somebody smuggled in would do
nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from volume_core.pages import spelling
from volume_core.pages.links import linked
from volume_core.pages.style import STYLE

_STYLE = """
:root{color-scheme:light dark;--line:rgba(128,128,128,.35);--soft:rgba(128,128,128,.1)}
body{margin:0 auto;max-width:76rem;padding:1.25rem 1.5rem 3rem;font:14px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",sans-serif}
.volume-page{max-width:none!important;padding:0!important}
.volume-page .vp-chart{margin-left:auto;margin-right:auto}
nav.way{font-size:13px;opacity:.85;margin-bottom:.75rem}
nav.way a{color:#3578b8;text-decoration:none}
nav.way a:hover{text-decoration:underline}
nav.way span{opacity:.5;padding:0 .4rem}
nav.tabs{display:flex;gap:.25rem;border-bottom:1px solid var(--line);margin:0 0 1rem}
nav.tabs a{padding:.4rem .9rem;color:inherit;text-decoration:none;opacity:.7;border-bottom:2px solid transparent;
margin-bottom:-1px}
nav.tabs a:hover{opacity:1;background:var(--soft)}
nav.tabs a[aria-current]{opacity:1;font-weight:600;border-bottom-color:#3578b8}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .25rem;font-weight:650}
form{display:flex;flex-wrap:wrap;gap:.5rem;margin:.75rem 0}
input{font:inherit;padding:.3rem .6rem;border:1px solid var(--line);border-radius:6px;background:transparent;
color:inherit;min-width:16rem}
button{font:inherit;padding:.3rem .9rem;border:1px solid var(--line);border-radius:6px;background:var(--soft);
color:inherit;cursor:pointer}
.note{border-left:3px solid #cf4743;padding:.5rem .9rem;margin:1rem 0;background:var(--soft);overflow-wrap:anywhere}
.quiet{opacity:.68}
.turn{margin-top:1rem}
.turn a,.empty a{color:#3578b8}
.empty{padding:2.5rem 1rem;text-align:center;opacity:.75;border:1px dashed var(--line);border-radius:8px;margin:1rem 0}
"""
# Airflow's switch between light and dark is in the browser's storage; without it, or without a script, the system's.
# Its frames may open no windows: a link to a task's page in Airflow is followed by the page around this one.
_SCRIPT = """
try{const t=localStorage.getItem("theme");
if(t==="dark"||t==="light")document.documentElement.style.colorScheme=t}catch{}
if(parent!==self)document.addEventListener("click",e=>{
const l=e.target.closest("a[target=_blank]");if(!l)return;e.preventDefault();
const a=parent.document.createElement("a");a.href=l.href;a.target="_blank";a.rel="noopener noreferrer";a.click()})
"""


class Tab(NamedTuple):
    """One of the pages about one thing."""

    name: str
    address: str
    is_here: bool


def page(
    title: str, body: Iterable[str], *, way: Sequence[tuple[str, str | None]] = (), tabs: Sequence[Tab] = ()
) -> str:
    """Return a document; *way* leads to it: (text, address) from the top, the last one without an address."""
    steps = [linked(escape(spelling.line(text, 200)), address) for text, address in way]
    shown = f'<nav class="way">{"<span>/</span>".join(steps)}</nav>' if steps else ""
    if tabs:
        shown += f'<nav class="tabs">{"".join(map(_tab, tabs))}</nav>'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(spelling.line(title, 200))}</title><style>{_STYLE}</style><script>{_SCRIPT}</script></head>"
        f"<body>{shown}<main>{''.join(body)}</main></body></html>\n"
    )


def _tab(tab: Tab) -> str:
    here = ' aria-current="page"' if tab.is_here else ""
    return f'<a href="{escape(tab.address)}"{here}>{escape(tab.name)}</a>'


def problem(title: str, text: str) -> str:
    """Return the page that says what went wrong."""
    told = escape(spelling.line(text))
    return page(title, [f"<h1>{escape(title)}</h1>", f'<p class="note">{told}</p>'])


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# As volume_core.pages puts its style into a fragment: a line of its own.
_STYLES = " ".join(map(_digest, (_STYLE, f"\n{STYLE}\n")))
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_STYLES}; script-src {_digest(_SCRIPT)}; img-src data:; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}
