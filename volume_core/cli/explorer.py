"""A version on the screen: its files on the left, its history on the right, and below that what is in a file.

    ┌ / ─────────────┐┌ history ─────────────────┐
    │ ▼ model/       ││ 2026-11-28  1.2M  epoch 3│
    │     config  612││ 2026-11-28  1.1M  epoch 2│
    │     weights  1M│├ /model/config ───────────┤
    │ ▶ logs/        ││ {"layers": 12, ...       │
    └────────────────┘└──────────────────────────┘

Always true: what it shows of a volume is shown as text, whatever is in it; a store that fails is told on the screen and
ends nothing; at most `ENTRIES_MAX` entries of a directory, `VERSIONS_MAX` versions and `PREVIEW_BYTES` of a file are
shown.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import DataTable, Footer, Header, Static, Tree
from textual.widgets.tree import TreeNode

from volume_core.cli.output import size
from volume_core.domain.paths import printable
from volume_core.errors import VolumeError
from volume_core.facade.fileentries import FileEntry
from volume_core.facade.statuses import HistoryEntry
from volume_core.facade.twins import in_thread
from volume_core.volumes import ROVolume

ENTRIES_MAX = 1_000
VERSIONS_MAX = 500
PREVIEW_BYTES = 64 << 10


class Explorer(App[None]):
    """Looks into one version, and into those that it came from."""

    CSS = """
    #files, #side { width: 1fr; }
    #files, #history, #preview { border: round $primary; }
    #history { height: 2fr; }
    #preview { height: 3fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [("q", "quit", "Quit"), ("tab", "app.focus_next", "Next pane")]

    def __init__(self, version: ROVolume) -> None:
        super().__init__()
        self.version = version
        self._versions: dict[str, HistoryEntry] = {}
        self._text = ""

    def compose(self) -> ComposeResult:
        """Lay out the panes."""
        yield Header()
        with Horizontal():
            yield Tree[FileEntry | None](Text("/"), id="files")
            with Vertical(id="side"):
                yield DataTable[Text](id="history", cursor_type="row", zebra_stripes=True)
                with VerticalScroll(id="preview"):
                    yield Static(id="text", markup=False)
        yield Footer()

    async def on_mount(self) -> None:
        """Fill the panes."""
        history = self.history
        history.border_title = "history"
        history.add_columns("committed", "size", "names", "message", "version")
        problem = await self._list_versions()
        await self._look_into(self.version)
        if problem:
            self._say("history", problem)
        self.files.focus()

    async def _list_versions(self) -> str:
        try:
            entries = await self.version.log(limit=VERSIONS_MAX, names=True)
        except (VolumeError, OSError) as error:
            return f"the history cannot be read: {error}"
        for entry in entries:
            self._versions[entry.volume.locator] = entry
            self.history.add_row(*_row(entry), key=entry.volume.locator)
        return ""

    @property
    def files(self) -> Tree[FileEntry | None]:
        """The tree."""
        return self.query_one("#files", Tree)

    @property
    def history(self) -> DataTable[Text]:
        """The table of versions."""
        return self.query_one("#history", DataTable)

    @property
    def shown(self) -> str:
        """The text of the preview."""
        return self._text

    async def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Look into the version that was chosen."""
        entry = self._versions[str(event.row_key.value)]
        await self._look_into(entry.volume)

    async def on_tree_node_expanded(self, event: Tree.NodeExpanded[FileEntry | None]) -> None:
        """List a directory the first time it is opened."""
        if not event.node.children:
            await self._list(event.node)

    async def on_tree_node_selected(self, event: Tree.NodeSelected[FileEntry | None]) -> None:
        """Show what was chosen."""
        entry = event.node.data
        if entry is None:
            self._say_facts()
        elif entry.is_file():
            await self._preview(entry)
        else:
            self._say(f"/{entry.path}", _facts_of(entry))

    async def on_unmount(self) -> None:
        """Close what was looked into."""
        for each in {self.version, *(entry.volume for entry in self._versions.values())}:
            await each.close()

    async def _look_into(self, version: ROVolume) -> None:
        self.version = version
        self.title, self.sub_title = printable(version.name), version.version[:12]
        self.files.reset(Text("/"))
        self.files.border_title = version.version[:12]
        if await self._list(self.files.root):
            self.files.root.expand()
            self._say_facts()

    async def _list(self, node: TreeNode[FileEntry | None]) -> bool:
        path = node.data.path if node.data is not None else "/"
        try:
            entries = await self.version.listdir(path)
        except (VolumeError, OSError) as error:
            self._say(path, f"it cannot be listed: {error}")
            return False
        for entry in entries[:ENTRIES_MAX]:
            if entry.is_dir():
                node.add(_label(entry), entry)
            else:
                node.add_leaf(_label(entry), entry)
        if len(entries) > ENTRIES_MAX:
            node.add_leaf(Text(f"... and {len(entries) - ENTRIES_MAX} more: volume ls", style="dim"), node.data)
        return True

    async def _preview(self, entry: FileEntry) -> None:
        version = self.version
        try:
            data = await in_thread(functools.partial(_beginning, version, entry.path))
        except (VolumeError, OSError) as error:
            self._say(f"/{entry.path}", f"it cannot be read: {error}")
            return
        self._say(f"/{entry.path}", _as_text(data, entry))

    def _say_facts(self) -> None:
        version, entry = self.version, self._versions.get(self.version.locator)
        made = version.produced_by
        facts = {
            "version": version.locator,
            "message": version.message,
            "committed": entry.created_at if entry else "",
            "files": f"{size(version.used_bytes)}, {version.inode_count} paths",
            "by": " ".join(filter(None, (made.engine, made.project, made.run, made.action))) if made else "",
            "came from": " ".join(entry.parents) if entry else "",
            "to mount it": f"volume mount {version.locator}",
        }
        lines = [f"{name}: {printable(value)}" for name, value in facts.items() if value]
        self._say(version.name, "\n".join(lines))

    def _say(self, what: str, text: str) -> None:
        self._text = text
        pane = self.query_one("#preview", VerticalScroll)
        pane.border_title = Text(printable(what)).markup
        pane.scroll_home(animate=False)
        self.query_one("#text", Static).update(Text(text))


def _row(entry: HistoryEntry) -> list[Text]:
    names = ", ".join([*(["head"] if entry.is_head else []), *entry.tags])
    volume = entry.volume
    cells = (
        entry.created_at[:16].replace("T", " "),
        size(volume.used_bytes),
        names,
        volume.message,
        volume.version[:12],
    )
    return [Text(printable(cell)) for cell in cells]


def _label(entry: FileEntry) -> Text:
    name = printable(entry.name)
    if entry.is_dir():
        return Text(f"{name}/")
    if entry.target is not None:
        return Text.assemble(name, (f" -> {printable(entry.target)}", "dim"))
    return Text.assemble(name, (f"  {size(entry.size)}", "dim"))


def _facts_of(entry: FileEntry) -> str:
    target = f"\nto: {printable(entry.target)}" if entry.target is not None else ""
    return f"{entry.type.name.lower()}, mode {entry.mode:04o}, owner {entry.uid}:{entry.gid}{target}"


def _beginning(version: ROVolume, path: str) -> bytes:
    return b"".join(version.read_file_sync(path, length=PREVIEW_BYTES))


def _as_text(data: bytes, entry: FileEntry) -> str:
    """Return what can be shown of a file that begins with *data*."""
    try:
        # The end may be in the middle of a character.
        text = data.decode() if len(data) == entry.size else data.decode(errors="ignore")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        return f"{size(entry.size)} that are no text; {_facts_of(entry)}"
    shown = "\n".join(_line(each) for each in text.splitlines())
    return shown if len(data) == entry.size else f"{shown}\n... {size(entry.size)} in all: volume cat"


def _line(text: str) -> str:
    """Return a line of a file as it can be drawn: what would move the cursor is a mark."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text.expandtabs(4))
