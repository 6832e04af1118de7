"""Each command: what it prints, what it leaves, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from volume_core import Volume
from volume_core.cli.exits import CODES, TRANSIENT, Failure, code_of
from volume_core.cli.main import COMMANDS, main
from volume_core.cli.output import size
from volume_core.domain.paths import printable
from volume_core.errors import CorruptObjectError, StorageError
from volume_core.parts.state import State
from volume_core.testing.oracle import assert_same_tree

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def test_new_prints_a_locator_that_works(said, told):
    locator = said("new", "data", "-m", "empty")
    version = Volume.from_locator_sync(locator)

    assert ("data", "empty", 0) == (version.name, version.message, version.used_bytes)
    assert json.loads(version.model_dump_json()) == {
        **told("new", "other", "-m", "empty"),
        "name": "data",
        "index": locator,
    }


def test_new_in_another_store(said, tmp_path):
    locator = said("new", "data", "--bucket", tmp_path / "bucket")

    assert locator.startswith(f"file://{tmp_path}/bucket/versions/data/")
    assert (tmp_path / "bucket" / "format.json").exists()


def test_cp_in_and_out_is_the_same_tree(said, locator, tmp_path):
    said("cp", f"{locator}:/", tmp_path / "out")
    said("cp", f"{locator}:/dir", tmp_path / "dir-out")

    assert_same_tree(tmp_path / "tree" / "dir", tmp_path / "dir-out")
    assert_same_tree(tmp_path / "tree", tmp_path / "out", ignore=["mtime_ns", "mode"])


def test_cp_in_merges_and_keeps_what_was_there(said, locator, tmp_path):
    more = tmp_path / "more"
    (more / "dir").mkdir(parents=True)
    (more / "dir" / "data.bin").write_bytes(b"replaced")
    (more / "dir" / "new").write_text("new")
    merged = said("cp", more, f"{locator}:/")
    below = said("cp", more, f"{locator}:/dir/fresh", "--fork", "other")

    assert "replaced" == said("cat", f"{merged}:/dir/data.bin")
    assert "new" == said("cat", f"{merged}:/dir/new")
    assert "hello" == said("cat", f"{merged}:/hello.txt")
    assert "replaced" == said("cat", f"{below}:/dir/fresh/dir/data.bin")
    assert "/versions/other/" in below


def test_cp_of_single_files(said, volume, locator, tmp_path):
    into = said("cp", tmp_path / "tree" / "hello.txt", f"{locator}:/dir")
    named = said("cp", tmp_path / "tree" / "hello.txt", f"{locator}:/dir/renamed.txt")
    piped = said("cp", "-", f"{locator}:/piped", input="from a pipe")
    volume("cp", f"{locator}:/hello.txt", tmp_path / "one")
    volume("cp", f"{locator}:/hello.txt", tmp_path / "dest")
    (tmp_path / "folder").mkdir()
    volume("cp", f"{locator}:/dir/link", tmp_path / "folder")

    assert ["hello", "hello", "hello"] == [
        said("cat", f"{each}:/{path}")
        for each, path in ((into, "dir/hello.txt"), (named, "dir/renamed.txt"), (locator, "dir/link"))
    ]
    original, copy = os.stat(tmp_path / "tree" / "hello.txt"), os.stat(tmp_path / "one")
    assert (original.st_mode, original.st_mtime_ns) == (copy.st_mode, copy.st_mtime_ns)
    assert "../hello.txt" == os.readlink(tmp_path / "folder" / "link")
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]
    assert piped


def test_cp_keeps_holes_and_links_of_a_file(said, tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 30)
        file.seek(700 << 20)
        file.write(b"island")
    os.setxattr(tmp_path / "sparse", "user.colour", b"blue")
    locator = said("cp", tmp_path / "sparse", f"{said('new', 'data')}:/")
    said("cp", f"{locator}:/sparse", tmp_path / "again")

    assert (1 << 30, b"blue") == (os.stat(tmp_path / "again").st_size, os.getxattr(tmp_path / "again", "user.colour"))
    assert os.stat(tmp_path / "again").st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["cp", "/etc/hostname", "/tmp/x"], 2, "one of SOURCE and DESTINATION"),
        (["cp", "LOCATOR:/", "LOCATOR:/x", "-r"], 1, "into itself"),
        (["cp", "LOCATOR:/dir", "LOCATOR:/x"], 1, "recursive=True"),
        (["cp", "/no/such", "LOCATOR:/"], 2, "no such file"),
        (["cp", "/etc/hostname", "LOCATOR:/no/such/dir"], 3, "no such directory"),
        (["cp", "LOCATOR:/nope", "/tmp/x"], 3, "no such path"),
        (["cat", "LOCATOR:/nope"], 3, "/nope: there is no such path"),
        (["cat", "LOCATOR:/dir"], 1, "it is a directory"),
        (["ls", "LOCATOR:/dir/data.bin/x"], 3, "no such path"),
        (["show", "nonsense"], 3, "there is no volume 'nonsense'"),
        (["show", "no/where"], 2, "not a locator"),
        (["show", "file:///none/versions/data/" + "0" * 64 + ".json"], 3, "no such version"),
        (["new", "bad name"], 2, "cannot name a volume"),
        (["fork", "LOCATOR", "bad/name"], 2, "cannot name a volume"),
        (["commit", "/tmp"], 3, "nothing is mounted at /tmp"),
        (["commit", "0123"], 3, "no working copy"),
        (["unmount", "/tmp"], 3, "nothing is mounted at /tmp"),
        (["mount", "LOCATOR", "--driver", "tape"], 2, "no driver 'tape'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(volume, locator, arguments, code, complaint):
    result = volume(*(each.replace("LOCATOR", locator) for each in arguments), code=code)

    assert complaint in result.stderr
    assert "Traceback" not in result.output
    assert "" == result.stdout
    if not result.stderr.startswith("Usage:"):
        assert 1 == len(result.stderr.splitlines())
        assert result.stderr.startswith("volume: ")


def test_ls_of_no_store_says_so(volume, said, tmp_path):
    missing = volume("ls", tmp_path / "typo", code=3).stderr

    assert "there is no store" in missing
    assert not (tmp_path / "typo").exists()
    assert said("ls").startswith("volume")  # the default one may be empty


def test_cp_into_a_directory_that_is_not_there_names_it(volume, locator, tmp_path):
    assert f"{tmp_path / 'typo'}: there is no such directory" in (
        volume("cp", f"{locator}:/hello.txt", tmp_path / "typo" / "x", code=2).stderr
    )


def test_ls_of_a_store_and_of_a_version(said, told, locator):
    said("fork", locator, "other")
    [data, other] = told("ls")

    assert (("data", 2), ("other", 1)) == ((data["name"], data["versions"]), (other["name"], other["versions"]))
    assert locator == data["locator"]
    assert ["data", "other"] == [line.split()[0] for line in said("ls").splitlines()[1:]]
    assert ["dir", "hello.txt", r"odd\nname\x1b[31m"] == said("ls", locator).splitlines()
    long = said("ls", "-l", f"{locator}:/dir").splitlines()
    assert ["-rw-r--r--", "5120", "data.bin"] == [long[0].split()[column] for column in (0, 3, 5)]
    assert long[1].endswith("link -> ../hello.txt")
    [link] = [each for each in told("ls", f"{locator}:/dir") if each["name"] == "link"]
    assert ("symlink", "../hello.txt", "dir/link") == (link["kind"], link["target"], link["path"])
    assert "odd\nname\x1b[31m" in [each["name"] for each in told("ls", locator)]


def test_tree_draws_what_is_there(said, told, locator):
    drawn = said("tree", locator)

    assert drawn.splitlines()[:4] == ["/", "├── dir", "│   ├── data.bin", "│   └── link -> ../hello.txt"]
    assert drawn.endswith("1 directories, 4 files")
    assert "data.bin" not in said("tree", "-L", "1", locator)
    assert "[5.0K]" in said("tree", "-s", f"{locator}:/dir")
    assert ["dir", "dir/data.bin"] == [each["path"] for each in told("tree", locator)][:2]


def test_cat_is_the_bytes(volume, locator):
    result = volume("cat", f"{locator}:/dir/data.bin", f"{locator}:/hello.txt")

    assert bytes(range(256)) * 20 + b"hello\n" == result.stdout_bytes


def test_log_and_show(said, told, locator):
    fork = said("fork", locator, "other", "-m", "a line of its own")
    entries = told("log", fork)
    shown = told("show", fork)

    assert ["a line of its own", "first files", ""] == [entry["message"] for entry in entries]
    assert entries[0] == shown
    assert [locator] == shown["parents"]
    assert 2 == len(told("log", "-n", "2", fork))
    assert [fork, locator] == [line.split()[3] for line in said("log", fork).splitlines()[1:3]]
    assert re.search(r"^message +a line of its own$", said("show", fork), re.MULTILINE)


def test_a_path_of_a_manifest_is_a_locator_too(said, locator):
    assert said("show", locator) == said("show", locator.removeprefix("file://"))


def test_verify_finds_what_is_damaged(volume, said, locator):
    assert "whole" == said("verify", locator)
    assert [] == json.loads(volume("verify", locator, "--json").stdout)
    [pack] = (State.default().root / "store" / "packs").rglob("*/*")
    damaged = bytearray(pack.read_bytes())
    damaged[-1] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(damaged)

    assert "whole" == said("verify", "--no-data", locator)
    assert pack.name in volume("verify", locator, code=5).stdout
    assert pack.name in json.loads(volume("verify", locator, "--json", code=5).stdout)[0]["name"]


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.fuse), "copy"])
def driver(request) -> str:
    return request.param


def test_a_detached_mount_is_seen_and_taken_down(said, told, volume, locator, tmp_path, driver):
    at = tmp_path / "at"
    path = Path(said("mount", "--detach", "--driver", driver, locator, at))
    [mount] = told("status")["mounts"]
    shown = said("status")
    assert_same_tree(tmp_path / "tree" / "dir", path / "dir")
    volume("unmount", path / "dir")

    assert at == path
    assert (str(at), locator, driver, False) == (mount["path"], mount["locator"], mount["driver"], mount["writable"])
    assert str(at) in shown
    assert not at.exists()
    assert "nothing is mounted" in said("status")


def test_a_writable_mount_is_committed_by_path(said, told, volume, locator, driver):
    found = told("mount", "--detach", "--rw", "--driver", driver, locator)
    path = Path(found["path"])
    (path / "new.txt").write_text("new")
    [work] = told("status")["work"]
    first = said("commit", path, "-m", "one")
    again = said("commit", path)
    (path / "newer.txt").write_text("newer")
    second = said("commit", "--unmount", found["working_copy"], "-m", "two")

    assert (found["working_copy"], True, "data") == (work["id"], work["mounted"], work["volume"])
    assert first == again
    assert not path.exists()
    assert ["two", "one", "first files", ""] == [entry["message"] for entry in told("log", second)]
    assert "newer" == said("cat", f"{second}:/newer.txt")
    assert [] == told("status")["work"]


def test_unmounting_keeps_what_is_not_committed(said, told, volume, locator, driver):
    path = Path(said("mount", "--detach", "--fork", "other", "--driver", driver, locator))
    (path / "new.txt").write_text("new")
    with open(path / "new.txt"):
        assert "new.txt" in volume("unmount", path, code=9).stderr
    remark = volume("unmount", path).stderr
    [work] = told("status")["work"]

    assert work["id"] in remark
    assert not work["mounted"]
    assert work["id"] in said("status")
    kept = said("commit", work["id"])
    assert ("new", []) == (said("cat", f"{kept}:/new.txt"), told("status")["work"])
    assert "/versions/other/" in kept


def test_unmounting_what_was_not_written_to_leaves_nothing(said, told, volume, locator, driver):
    path = said("mount", "--detach", "--rw", "--driver", driver, locator)
    result = volume("unmount", path)

    assert "" == result.output
    assert [] == told("status")["work"]


def test_abandon_drops_it(said, told, volume, locator, driver):
    path = Path(said("mount", "--detach", "--rw", "--driver", driver, locator))
    (path / "new.txt").write_text("new")
    volume("abandon", path)

    assert not path.exists()
    assert ([], []) == (told("status")["work"], told("status")["mounts"])


def test_a_read_only_mount_has_nothing_to_commit(said, volume, locator):
    path = said("mount", "--detach", "--driver", "copy", locator)

    assert "to read only" in volume("commit", path, code=3).stderr
    volume("unmount", path)


def test_doctor_says_what_works(said, told):
    report = told("doctor", "--no-try")

    assert {"kernel", "fuse-overlay", "copy"} == {each["name"] for each in report["drivers"]}
    assert "copy" in said("doctor", "--no-try")


def test_every_command_is_documented_and_has_help(said):
    documented = set(re.findall(r"^\| `volume ([a-z]+)", DOCS, re.MULTILINE))

    assert set(COMMANDS) == documented
    for command in COMMANDS:
        assert said(command, "--help").startswith("Usage: ")


def test_every_exit_code_is_documented():
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCS, re.MULTILINE)}

    assert {0, TRANSIENT, 130, *CODES.values()} == documented


def test_errors_have_the_codes_of_their_class():
    assert [5, 6, 7] == [
        code_of(error) for error in (CorruptObjectError(), StorageError("x"), StorageError("x", transient=True))
    ]
    noted = StorageError("two\nlines")
    noted.add_note("and a note")
    assert "two lines; and a note" == Failure(noted).message


def test_an_unexpected_error_keeps_its_traceback(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("volume_core.cli.versions.Volume.new", broken)
    result = CliRunner().invoke(main, ["new"])

    assert isinstance(result.exception, ZeroDivisionError)


def test_no_name_of_a_file_reaches_the_terminal_raw():
    assert r"a\nb\x1b[2J\\ü\xff" == printable(b"a\nb\x1b[2J\\\xc3\xbc\xff")


def test_sizes_for_people():
    assert ["0", "1023", "1.0K", "1.5M", "200G", "2048P"] == [
        size(n) for n in (0, 1023, 1024, 3 << 19, 200 << 30, 2 << 60)
    ]


def test_the_command_starts_without_what_it_does_not_need():
    code = (
        "import sys\nfrom volume_core.cli.main import main\n"
        "try: main(['--version'])\nexcept SystemExit: pass\n"
        "assert not {'obstore', 'botocore', 'pydantic', 'rich', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_group_is_a_click_group():
    assert isinstance(main, click.Group)
    assert sorted(COMMANDS) == main.list_commands(click.Context(main))
