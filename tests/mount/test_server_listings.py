"""Directories as the kernel lists them: in pages, from any entry, by any server, always whole."""

from __future__ import annotations

import errno
import struct

import pytest
from server_asking import DIRECTORY, Asked, file, names_of

from volume_core.errors import CorruptObjectError
from volume_core.format.entries import WHITEOUT
from volume_core.mount import protocol as fuse


@pytest.fixture
def ask(tmp_path):
    return lambda *stacks, **more: Asked(tmp_path, *stacks, **more)


NAMES = [b"%04d" % number for number in range(150)] + [b"\xff" * 255, b"n" * 255, b"with space"]


@pytest.mark.parametrize("plus", [True, False])
@pytest.mark.parametrize("fresh", [False, True])
def test_a_listing_is_whole_however_it_is_asked_for(ask, plus, fresh):
    asked = ask({name: file(1) for name in NAMES})

    found = asked.listing(1, 1024, fresh, plus)

    assert [b".", b"..", *sorted(NAMES)] == names_of(found)
    assert len(found) == len({following for _, _, following, _ in found})


@pytest.mark.parametrize("fresh", [False, True])
def test_a_listing_of_several_layers_is_what_they_show(ask, fresh):
    old = {b"d": DIRECTORY, **{b"d/%03d" % n: file(1) for n in range(0, 300, 2)}}
    new = {**{b"d/%03d" % n: file(2) for n in range(0, 300, 3)}, **{b"d/%03d" % n: WHITEOUT for n in range(0, 300, 10)}}
    asked = ask(old, new)
    shown = sorted(b"%03d" % n for n in range(300) if (n % 2 == 0 or n % 3 == 0) and n % 10)

    found = asked.listing(asked.number(b"d"), 2048, fresh)

    assert [b".", b"..", *shown] == names_of(found)
    assert all(asked.number(b"d/" + name) == ino for name, ino, _, _ in found[2:])


def test_the_dots_have_the_right_numbers_and_no_node(ask):
    asked = ask({b"d": DIRECTORY, b"d/e": DIRECTORY})
    d, e = asked.number(b"d"), asked.number(b"d/e")

    assert [(b".", e, 1, 0), (b"..", d, 2, 0)] == asked.listing(e)
    assert [(b".", 1, 1, 0), (b"..", 1, 2, 0)] == asked.listing(1)[:2]


def test_two_readers_of_one_directory_do_not_disturb_each_other(ask):
    asked = ask({name: file(1) for name in NAMES})
    first = asked.page(1, 0, 1024)
    second = asked.page(1, 0, 1024)

    assert first == second
    assert asked.page(1, first[-1][2], 1024) == asked.page(1, second[-1][2], 1024)


def test_the_next_page_can_be_ready_before_it_is_asked_for(ask):
    asked = ask({name: file(1) for name in NAMES}, {b"%04d" % number: WHITEOUT for number in range(0, 150, 7)})
    expected, found, offset, prepared = asked.listing(1, 1024, fresh=True), [], 0, []
    while page := asked.page(1, offset, 1024):
        found += page
        offset = page[-1][2]
        asked.requests.prepare(lambda: True)
        asked.requests.prepare(lambda: True)  # one page and no more
        prepared.append(len(asked.requests._prepared))

    assert expected == found
    assert [1] * (len(prepared) - 1) + [0] == prepared


def test_nothing_is_prepared_while_somebody_waits(ask):
    asked = ask({name: file(1) for name in NAMES})
    asked.page(1, 0, 1024)
    asked.requests.prepare(lambda: False)

    assert {} == asked.requests._prepared
    asked.requests.prepare(lambda: True)
    assert 1 == len(asked.requests._prepared)


def test_a_page_that_cannot_be_prepared_is_an_error_when_it_is_asked_for(ask, monkeypatch):
    asked = ask({name: file(1) for name in NAMES})
    offset = asked.page(1, 0, 1024)[-1][2]

    def broken(*_):
        raise CorruptObjectError("its index cannot be read")

    monkeypatch.setattr(asked.requests, "_resume", broken)
    asked.requests.prepare(lambda: True)
    assert {} == asked.requests._prepared
    with pytest.raises(CorruptObjectError):
        asked.page(1, offset, 1024)


def test_pages_that_nobody_asks_for_are_forgotten(ask):
    directories = {b"d%02d" % n: DIRECTORY for n in range(20)}
    asked = ask(directories | {b"%s/%03d" % (d, n): file(1) for d in directories for n in range(40)})
    for name in directories:
        asked.page(asked.number(name), 0, 2048)
        asked.requests.prepare(lambda: True)

    assert 4 == len(asked.requests._prepared)


def test_a_listing_can_be_continued_at_any_entry(ask):
    asked = ask({name: file(1) for name in NAMES})
    found = asked.listing(1)

    for place in (0, 1, 5, 70, len(found) - 1):
        assert found[place + 1 : place + 3] == asked.page(1, found[place][2], 4096)[:2]


def test_abandoned_listings_are_forgotten(ask):
    directories = {b"d%02d" % n: DIRECTORY for n in range(40)}
    asked = ask(directories | {b"%s/%03d" % (d, n): file(1) for d in directories for n in range(40)})
    for name in directories:
        asked.page(asked.number(name), 0, 2048)

    assert len(asked.requests._listings) <= 16
    assert 42 == len(asked.listing(asked.number(b"d00"), 2048))


@pytest.mark.parametrize("offset", [(1 << 40) + 999, (7 << 40) + 1, (1 << 63) - 1])
def test_an_offset_that_nobody_gave_is_refused(ask, offset):
    body = struct.pack("<QQI20x", 0, offset, 4096)

    assert errno.EINVAL == ask({b"a": file(1)}).errno(fuse.READDIRPLUS, 1, body)


def test_a_file_has_no_listing_and_no_names(ask):
    asked = ask({b"a": file(1)})

    assert errno.ENOTDIR == asked.errno(fuse.READDIRPLUS, asked.number(b"a"), bytes(40))
    assert errno.ENOTDIR == asked.errno(fuse.LOOKUP, asked.number(b"a"), b"x\0")
