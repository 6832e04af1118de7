"""docs/format says what the code does: every field, column and number of one is in the other."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from make_golden_objects import OBJECTS

from volume_core.format import head, intent, layer, lease, manifest, names, pack, storeinfo, tag
from volume_core.format.entries import CHUNK_BYTES, Codec, Kind

PAGES = Path(__file__).parents[2] / "docs" / "format"


def page(name: str) -> str:
    return (PAGES / f"{name}.md").read_text()


def section(text: str, beginning: str) -> list[list[str]]:
    """The rows of the first table behind *beginning*, without its head."""
    rows: list[list[str]] = []
    for line in text[text.index(beginning) + len(beginning) :].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
        elif rows:
            break
    return rows[2:]


def keys(rows: list[list[str]]) -> set[str]:
    return {key for row in rows for key in re.findall(r"`([\w.]+)`", row[0])}


def test_every_key_of_a_manifest():
    whole = manifest.Manifest("volume", "now")
    text = page("manifest")

    assert set(json.loads(whole.to_bytes())) == keys(section(text, "A JSON object with exactly these keys:"))
    assert {field.name for field in dataclasses.fields(manifest.LayerRef)} == keys(section(text, "A **layer** is"))
    actions = re.search(r"An \*\*action\*\* is an object with exactly the keys (.*), all text", text)
    assert {field.name for field in dataclasses.fields(manifest.Action)} == set(re.findall(r"`(\w+)`", actions[1]))


@pytest.mark.parametrize("value", OBJECTS.values(), ids=lambda value: type(value).__name__.lower())
def test_every_key_of_a_head_a_tag_and_a_lease(value):
    text = page(type(value).__name__.lower())
    written = json.loads(value.to_bytes())

    assert set(written) == keys(section(text, "A JSON object with exactly these keys:"))
    for move in written.get("history", ()):
        assert set(move) == keys(section(text, "A **move** is"))


def test_every_key_of_the_stores_format():
    text = page("store")
    rows = keys(section(text, "## format.json"))
    written = json.loads(storeinfo.StoreFormat().to_bytes())

    assert {*written, *(f"promises.{name}" for name in written["promises"])} == rows


def test_the_tables_of_a_layer_are_spelled_as_they_are_made():
    (block,) = re.findall(r"```sql\n(.*?)```", page("layer"), re.DOTALL)

    assert (layer.SCHEMA + layer.INDEXES.lstrip("\n")).strip() == block.strip()


def test_every_column_of_an_entry():
    described = keys(section(page("layer"), "`entry`: what the commit changed")) | {"id", "xattrs"}

    assert set(layer.Row._fields) == described


def test_every_kind_has_its_number():
    rows = section(page("layer"), "What an entry of each kind does:")

    assert [str(int(kind)) for kind in Kind] == [row[0] for row in rows]


def test_every_spelling_of_content():
    assert ["NULL", "an INTEGER", "a BLOB"] == [row[0] for row in section(page("layer"), "`content` of a file:")]


def test_every_codec_has_its_number():
    rows = section(page("pack"), "`codec` how they lie:")

    assert list(map(int, Codec)) == [int(row[0]) for row in rows]


def test_the_header_of_a_pack():
    rows = section(page("pack"), "# Pack, version 1")
    sizes = [int(row[1]) for row in rows[:-1]]

    assert [sum(sizes[:n]) for n in range(4)] == [int(row[0]) for row in rows]
    assert (pack.HEADER_BYTES, pack.NONCE_BYTES) == (sum(sizes), sizes[2])
    assert pack.MAGIC.decode() == "".join(re.match("`(.*?)`", row[2])[1] for row in rows[:2])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pack", f"({CHUNK_BYTES:,} bytes)"),
        ("pack", f"({pack.PACK_BYTES:,} bytes)"),
        ("layer", f"0x{layer.APPLICATION_ID:08X}"),
        ("layer", f"| `user_version` | {layer.USER_VERSION},"),
        ("store", f"`{storeinfo.FORMAT}`"),
        ("manifest", f"`{manifest.FORMAT}`"),
        ("intent", f"`{intent.FORMAT}`"),
        ("head", f"`{head.FORMAT}`"),
        ("head", f"1 to {head.HISTORY_MAX} of them"),
        ("tag", f"`{tag.FORMAT}`"),
        ("lease", f"`{lease.FORMAT}`"),
        ("store", f"1 to {names.NAME_CHARACTERS_MAX} of"),
    ],
)
def test_the_numbers_are_those_of_the_code(name, said):
    assert said in page(name)


@pytest.mark.parametrize(
    "prefix",
    [names.PACKS, names.LAYERS, names.VERSIONS, names.INTENTS, names.HEADS, names.TAGS, names.LEASES],
)
def test_every_name_of_an_object_is_on_the_page(prefix):
    assert f"`{prefix}" in page("store")


def test_every_format_says_which_release_reads_it():
    text = page("changes")

    json_formats = (module.FORMAT for module in (storeinfo, manifest, intent, head, tag, lease))
    for said in (pack.MAGIC.decode(), *json_formats):
        assert f"`{said}`" in text
    assert f"`user_version` {layer.USER_VERSION} " in text
