"""Fragments to browse with: well-formed, harmless, bounded, and their links lead where the door says."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET

import pytest

from volume_core import InvalidNameError, NoSuchPathError, Volume, VolumeError
from volume_core.facade.listing import Newest, listed_in, newest_of, volumes_in
from volume_core.facade.naming import place_of
from volume_core.format.names import version_name
from volume_core.pages import differences_page, files_page, history_page, volumes_page
from volume_core.pages.lanes import Crossing, crossings, drawn

HOSTILE = "</style><script>alert(1)</script>\" onload='x'"


@pytest.fixture(autouse=True)
def _own_state(own_state):
    """A state directory, and so a store, of each test's own."""


class Told:
    """Links that say what they were asked."""

    def volume(self, name):
        return f"volume?{name}"

    def version(self, locator):
        return f"version?{locator}"

    def directory(self, path, after=0):
        return f"directory?{path}&{after}"

    def file(self, path):
        return f"file?{path}"


def version_of(files, name="data", message="", base=None):
    writer = base.fork_sync(name) if base is not None else Volume.new(name)
    with writer.mounted_sync(driver="copy", message=message) as root:
        for path, text in files.items():
            place = os.path.join(os.fsencode(root), os.fsencode(path))
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "w") as file:
                file.write(text)
    return writer.committed


def hrefs(fragment):
    """The links of *fragment*, which is well-formed."""
    return [each.get("href") for each in ET.fromstring(fragment).iter() if each.tag.endswith("a")]


# -- files


def test_a_directory_is_listed_with_a_link_for_each_file_and_directory():
    version = version_of({"a.txt": "12345", "sub/b": ""})

    page = files_page(version, links=Told())

    assert ["directory?&0", "file?a.txt", "directory?sub&0"] == hrefs(page)
    assert "5 B" in page


def test_below_the_root_each_part_of_the_path_is_a_link():
    version = version_of({"one/two/three": ""})

    assert ["directory?&0", "directory?one&0", "directory?one/two&0", "file?one/two/three"] == hrefs(
        files_page(version, "one/two", links=Told())
    )


def test_a_large_directory_is_shown_in_pages_that_have_every_entry_once_and_in_order():
    base = version_of({f"{number:03}": "" for number in range(0, 60, 2)})
    version = version_of({f"{number:03}": "" for number in range(1, 60, 2)}, base=base)
    seen, after = [], 0

    for _ in range(6):
        page = files_page(version, links=Told(), after=after, entries_max=10)
        links = hrefs(page)
        seen += [link.removeprefix("file?") for link in links if link.startswith("file?")]
        after = int(links[-1].rpartition("&")[2]) if "Next page" in page else None

    assert [f"{number:03}" for number in range(60)] == seen
    assert after is None  # the last page leads to none


@pytest.mark.parametrize("position", [1 << 80, (1 << 40) - 1, 1 << 33, 7])
def test_a_position_that_is_none_is_refused(position):
    version = version_of({"a": ""})

    with pytest.raises(InvalidNameError, match="position"):
        files_page(version, links=Told(), after=position)


def test_a_file_is_no_directory_and_a_path_does_not_leave_the_version():
    version = version_of({"a": ""})

    with pytest.raises(VolumeError, match="directory"):
        files_page(version, "a", links=Told())
    with pytest.raises(NoSuchPathError):
        files_page(version, "nothing", links=Told())
    assert "file?a" in hrefs(files_page(version, "../../../..", links=Told()))  # as in the kernel: above / is /


def test_names_are_text_whatever_is_in_them():
    version = version_of({HOSTILE.replace("/", "|"): "", os.fsdecode(b"\xff\n"): ""})

    page = files_page(version, links=Told())

    assert "<script" not in page
    assert ["file?" + HOSTILE.replace("/", "|"), "file?" + os.fsdecode(b"\xff\n")] == hrefs_of_bytes(page)


def hrefs_of_bytes(page):
    # What is no UTF-8 is the door's to encode; this one leaves it as it is, which ET refuses.
    from html import unescape

    found = re.findall(r'<td class="vp-path"><a href="([^"]*)"', page)
    return [unescape(each) for each in found]


def test_a_symlink_is_shown_with_its_target_and_followed_by_nobody():
    writer = Volume.new("data")
    with writer.mounted_sync(driver="copy") as root:
        (root / "link").symlink_to("/etc/passwd")

    page = files_page(writer.committed, links=Told())

    assert ["directory?&0"] == hrefs(page)
    assert "/etc/passwd" in page


# -- history


def test_a_history_lists_versions_with_their_names_and_links():
    first = version_of({"a": "1"}, message="first")
    second = version_of({"a": "22"}, message="second", base=first)
    second.tag_sync("good")

    page = history_page(second, links=Told())

    assert [f"version?{second.locator}", f"version?{first.locator}"] == hrefs(page)
    assert ">good<" in page


def test_a_long_history_is_cut_and_says_so():
    version = version_of({"a": "0"})
    for number in range(4):
        version = version_of({"a": str(number)}, base=version, message=HOSTILE)

    page = history_page(version, links=Told(), versions_max=3)

    assert 3 == len(hrefs(page))
    assert "there are more" in page
    assert "<script" not in page


def test_each_version_has_a_dot_and_a_merge_has_two_lines_to_its_parents():
    parents = {"merge": ["left", "right"], "left": ["base"], "right": ["base"], "base": []}

    assert [
        Crossing(0, (), (), (0, 1), False),
        Crossing(0, (1,), (0,), (0,), False),
        Crossing(1, (0,), (1,), (0,), False),
        Crossing(0, (), (0,), (), False),
    ] == list(crossings(parents))


def test_a_parent_that_is_not_in_the_list_is_a_line_that_fades_out():
    [row] = crossings({"last": ["gone"]})

    assert row.fades
    assert not row.beginning
    assert "vp-fades" in drawn(row, 1)


def test_lanes_that_have_ended_are_used_again():
    parents = {"a": ["c"], "b": ["c"], "c": [], "d": ["f"], "e": ["f"], "f": []}

    assert [1, 2, 1, 1, 2, 1] == [row.width for row in crossings(parents)]


def test_many_lanes_take_no_more_room_than_sixteen():
    parents = {f"{number}": [f"p{number}"] for number in range(40)} | {f"p{number}": [] for number in range(40)}
    wide = list(crossings(parents))

    assert 40 == wide[39].width
    assert int(ET.fromstring(drawn(wide[39], 40)).get("width")) < 250


# -- differences


def test_any_two_versions_are_compared():
    base = version_of({"kept": "1", "gone": "1"})
    middle = version_of({"more": "1"}, base=base)
    writer = middle.fork_sync("data")
    with writer.batch_upload_sync(force=True) as batch:
        batch.remove("gone")
    last = batch.version

    page = differences_page(base, last, links=Told())

    assert ["removed", "added", "metadata"] == re.findall(r'<td class="vp-kind vp-(\w+)">', page)  # the root's time
    assert [f"version?{base.locator}", f"version?{last.locator}"] == hrefs(page)
    assert "the same tree" in differences_page(last, last, links=Told())


def test_what_would_take_much_to_fetch_is_not_compared(monkeypatch):
    from volume_core.facade import telling

    first, second = version_of({"a": "1"}), version_of({"a": "1"}, name="other")
    monkeypatch.setattr(telling, "FETCH_BYTES_MAX", -1)

    assert "too much would have to be fetched" in differences_page(first, second, links=Told())


# -- a store


def test_volumes_are_listed_with_what_their_newest_versions_say():
    version_of({"a": "1"}, name="one", message=HOSTILE)
    two = version_of({"a": "1"}, name="two")
    place = place_of(None)

    found = newest_of(place, listed_in(place.store()))
    page = volumes_page(place.url, found, links=Told())

    assert ["one", "two"] == [each.name for each in found]
    assert two.locator == str(found[1].version.locator)
    assert "<script" not in page
    assert "volume?one" in hrefs(page)


def test_a_volume_whose_manifest_is_broken_is_a_row_that_says_so():
    version = version_of({"a": "1"})
    version_of({"a": "1"}, name="whole")
    place = place_of(None)
    store = place.store()
    name = version_name("data", version.version)
    store.delete(name)
    store.put_new(name, b"{}")

    found = newest_of(place, listed_in(store))

    assert [None, True] == [each.version and True for each in found]
    page = volumes_page(place.url, found, links=Told())
    assert "vp-removed" in page and "volume?whole" in hrefs(page)


def test_the_names_alone_tell_as_much_as_they_can():
    version = version_of({"a": "1"})
    place = place_of(None)

    [each] = listed_in(place.store())
    [info] = volumes_in(place.store())

    assert ("data", 1, version.version) == each[:3]
    assert info.locator == version.locator


def test_an_empty_store_has_no_table():
    assert "<table" not in volumes_page("file:///nowhere", list[Newest](), links=Told())
