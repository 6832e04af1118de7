"""The tab "Volumes" of a task's report: what the task mounted, and a page about each version that it committed.

    @env.task(report=True)
    async def train(base: ROVolume) -> ROVolume: ...     # nothing to call: hooks of volume_core tell this module

How it gets into the report: flyte asks a tab for its HTML when it writes the report, for tasks with `report=True` only,
and before it converts what the task returned.  So entries become HTML when they are asked for, at no cost to other
tasks; and an entry that comes later makes flyte write the report once more.

Always true: no failure here reaches the task; a tab shows at most `PAGES` pages, of the newest versions.
"""

from __future__ import annotations

import asyncio
import html
import logging
import threading
import weakref
from typing import TYPE_CHECKING

import flyte.report
from flyte.report._report import Tab  # flyte has no public name for it

from volume_flyte.v2.running import task_context

if TYPE_CHECKING:
    from flyte.report import Report

    from volume_core import ActionRef, ROVolume

log = logging.getLogger(__name__)

TAB = "Volumes"
PAGES = 10

# Checkpoints are committed by threads that know their action, but not the context of the task.
_reports: weakref.WeakValueDictionary[tuple[str, str], Report] = weakref.WeakValueDictionary()


def note_mounted(name: str, locator: str | None, action: ActionRef | None, *, writable: bool) -> None:
    """The running task mounted the volume *name*, at the version *locator*."""
    tab = _tab(action)
    if tab is None:
        return
    how = "writable" if writable else "read-only"
    line = _line(f"{name}, mounted {how}", locator or "no version yet")
    if line not in tab.content:
        tab.content.append(line)


def note_committed(version: ROVolume, action: ActionRef | None) -> None:
    """The running task committed *version*."""
    tab = _tab(action)
    if tab is not None:
        tab.content.append(_Page(version))
        tab.show_again()


def page_of(version: ROVolume) -> str:
    """Return the page about *version*; one line where that cannot be made."""
    try:
        from volume_core.pages import version_page

        return version_page(version)
    except Exception as error:  # a page is worth no task
        log.warning("there is no page about %s: %s: %s", version.locator, type(error).__name__, error)
        return _line_of(version)


class _Page(str):
    """A committed version in a tab's content: its line, and its page for who asks."""

    version: ROVolume
    _page: str | None

    def __new__(cls, version: ROVolume) -> _Page:
        made = super().__new__(cls, _line_of(version))
        made.version, made._page = version, None
        return made

    def page(self) -> str:
        if self._page is None:
            self._page = page_of(self.version)
        return self._page


class VolumesTab(Tab):
    """A tab whose pages are made when flyte asks for them."""

    def __init__(self, content: list[str]) -> None:
        super().__init__(TAB)
        self.content = content
        self._was_shown = False
        self._showing = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def get_html(self) -> str:
        """Return the entries in their order: pages of the newest versions, lines of everything else."""
        self._was_shown = True
        content = list(self.content)
        newest = {id(each) for each in [each for each in content if isinstance(each, _Page)][-PAGES:]}
        return "\n".join(each.page() if isinstance(each, _Page) and id(each) in newest else each for each in content)

    def show_again(self) -> None:
        """Have the report written once more, where it was written before this entry."""
        if not self._was_shown:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            with self._showing:  # one after the other, so that the last one written is the last one made
                flyte.report.flush()
        else:  # who waits here holds up the loop that is to write it
            task = loop.create_task(_flush())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _flush() -> None:
    await flyte.report.flush.aio()


def _tab(action: ActionRef | None) -> VolumesTab | None:
    """The tab of the running task, or of the task whose action this is; None where there is no report."""
    context = task_context()
    key = (action.run, action.action) if action is not None else None
    report = context.report if context is not None else _reports.get(key) if key is not None else None
    if report is None:
        return None
    if key is not None:
        _reports[key] = report
    tab = report.tabs.get(TAB)
    if not isinstance(tab, VolumesTab):  # whoever has made a tab of this name goes on with its content
        tab = report.tabs[TAB] = VolumesTab(tab.content if tab is not None else [])
    return tab


def _line_of(version: ROVolume) -> str:
    return _line(f"{version.name}, committed", version.locator, version.message)


def _line(what: str, where: str, message: str = "") -> str:
    said = f" ({html.escape(message)})" if message else ""
    return f"<p>{html.escape(what)}: <code>{html.escape(where)}</code>{said}</p>"
