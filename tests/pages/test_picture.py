"""The picture in Markdown: an image by itself, whatever it stands in."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET

from markdown_it import MarkdownIt

from volume_core import Volume
from volume_core.pages import version_markdown

SVG = "{http://www.w3.org/2000/svg}"


def line_of(count: int):
    volume = Volume.new("data")
    for number in range(count):
        with volume.batch_upload_sync(force=True) as batch:
            batch.put_file(io.BytesIO(b"x" * 1000 * (number + 1)), "/file")
    return batch.version


def images(markdown: str) -> list[str]:
    reader = MarkdownIt()
    reader.validateLink = lambda _address: True  # who shows it decides; this one knows of no SVG
    tokens = reader.parse(markdown)
    return [each.attrs["src"] for token in tokens for each in token.children or () if each.type == "image"]


def test_the_picture_holds_a_dot_for_each_version_and_fetches_nothing(own_state):
    [address] = images(version_markdown(line_of(3), picture=True))
    kind, _, data = address.partition(",")
    assert kind == "data:image/svg+xml;base64"
    root = ET.fromstring(base64.b64decode(data))
    assert len(root.findall(f"{SVG}circle")) == 3
    assert root.get("width") and root.get("height")
    assert b"http" not in base64.b64decode(data).replace(b"http://www.w3.org/2000/svg", b"")


def test_there_is_no_picture_of_one_version_nor_where_none_is_wanted(own_state):
    assert images(version_markdown(line_of(1), picture=True)) == []
    assert images(version_markdown(line_of(2))) == []
