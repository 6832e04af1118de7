"""Writing through `vol://`: one commit for a call, one for a transaction, and none after an error."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
from fs_kit import BIG, ODD_NAMES, TREE, write

from volume_core import ROVolume, Volume
from volume_core.facade.addresses import to_text
from volume_core.fs import VolumeFileSystem, url_of
from volume_core.parts.state import State


def head(name: str = "data") -> ROVolume:
    """The head of a volume of the default store."""
    found = Volume.from_name_sync(name).committed
    assert found is not None
    return found


def contents(name: str = "data") -> dict[str, bytes]:
    """Every file of a volume's newest version, read by another door."""
    version = head(name)
    files = [entry.path for entry in version.iterdir_sync("/") if entry.is_file()]
    return {path: b"".join(version.read_file_sync(path)) for path in files}


@pytest.fixture
def commits(version):
    """How many versions were made since the fixture, and since it was asked last."""
    seen = 1

    def made() -> int:
        nonlocal seen
        before, seen = seen, len(head().log_sync())
        return seen - before

    return made


@pytest.fixture
def left_behind():
    """What of written files still lies in the state directory."""
    staging = State.default().root / "staging"
    return lambda: sorted(path.name for path in staging.rglob("*") if path.is_file())


def test_a_call_is_a_commit(fs, commits, tmp_path):
    write(tmp_path / "in", {"x/1": b"one", "x/2": b"two", "y/": b""})
    for call in [
        lambda: fs.pipe_file("data/new", b"1"),
        lambda: fs.pipe({f"data/many/{number}": b"%d" % number for number in range(9)}),
        lambda: fs.put(str(tmp_path / "in"), "data/in", recursive=True),
        lambda: fs.put_file(tmp_path / "in" / "x" / "1", "data/one"),
        lambda: fs.cp("data/in", "data/copy", recursive=True),
        lambda: fs.cp("data/a.txt", "data/b.txt"),
        lambda: fs.mv("data/copy", "data/moved", recursive=True),
        lambda: fs.mv("data/many/*", "data/in"),
        lambda: fs.rm("data/moved", recursive=True),
        lambda: fs.rm(["data/one", "data/b.txt"]),
        lambda: fs.makedirs("data/deep/er"),
        lambda: fs.mkdir("data/deep/est"),
        lambda: fs.rmdir("data/deep/est"),
        lambda: fs.touch("data/touched"),
        lambda: fs.write_text("data/text", "é", encoding="utf-8"),
    ]:
        call()
        assert 1 == commits()

    files = {f"in/{number}": b"%d" % number for number in range(9)} | {"in/x/1": b"one", "in/x/2": b"two"}
    files |= {name: data for name, data in TREE.items() if not name.endswith("/")}
    assert files | {"new": b"1", "touched": b"", "text": "é".encode()} == contents()
    assert fs.isdir("data/deep/er") and fs.isdir("data/in/y") and fs.isdir("data/many")
    assert contents() == {name.removeprefix("data/"): data for name, data in fs.cat("data", recursive=True).items()}


def test_a_transaction_is_one_commit(fs, commits, tmp_path, left_behind):
    local = tmp_path / "local"
    local.write_bytes(b"before")
    with fs.transaction:
        with fs.open("data/w", "wb") as file:
            file.write(b"written")
        fs.pipe_file("data/d/piped", b"piped")
        fs.put_file(local, "data/put")
        local.write_bytes(b"changed since")
        fs.cp("data/put", "data/copied")
        fs.mv("data/d/b.txt", "data/moved")
        fs.rm("data/a.txt")
        fs.touch("data/d/e/c.bin", truncate=False)
        still_open = fs.open("data/still", "wb")
        still_open.write(b"open")

        assert {"data/w", "data/d/piped", "data/put", "data/copied", "data/moved"} < set(fs.find("data"))
        assert (b"written", b"before") == (fs.cat("data/w"), fs.cat("data/copied")), "what was written is read"
        assert b"rit" == fs.cat_file("data/w", 1, 4) == fs.open("data/w").read()[1:4]
        assert 5 == fs.info("data/d/piped")["size"] and not fs.exists("data/a.txt")
        assert ["b", "e"] != fs.ls("data/d", detail=False)
        assert b"a" == VolumeFileSystem(message="another").cat("data/a.txt"), "but by nobody else"
        assert 0 == commits()
        assert left_behind()

    assert 1 == commits()
    assert [] == [name for name in left_behind() if name != "lock"]
    found = contents()
    assert "a.txt" not in found and "d/b.txt" not in found
    assert [b"written", b"piped", b"before", b"before", b"bb", b"open"] == [
        found[name] for name in ("w", "d/piped", "put", "copied", "moved", "still")
    ]
    assert found == {name.removeprefix("data/"): data for name, data in fs.cat("data", recursive=True).items()}


def test_a_transaction_that_fails_is_none(fs, commits, left_behind):
    def write_and_fail() -> None:
        with fs.transaction:
            fs.pipe_file("data/x", b"1")
            fs.open("data/y", "wb").write(b"2")
            fs.rm("data/d", recursive=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()

    assert 0 == commits()
    assert [] == left_behind()
    assert not fs.exists("data/x") and fs.exists("data/d/b.txt")
    fs.pipe_file("data/x", b"and on")
    assert 1 == commits()

    fs.start_transaction()
    fs.pipe_file("data/z", b"1")
    fs.end_transaction()
    assert 1 == commits() and b"1" == fs.cat("data/z")


def test_a_transaction_is_done_to_the_head_as_it_is_then(fs, commits):
    with fs.transaction:
        fs.pipe_file("data/mine", b"1")
        fs.rm("data/a.txt")
        VolumeFileSystem(message="another").pipe({"data/theirs": b"2", "data/mine": b"theirs"})
        assert not fs.exists("data/theirs")

    assert 2 == commits()
    found = contents()
    assert {"theirs": b"2", "mine": b"1"} == {
        name: found[name] for name in ("theirs", "mine", "a.txt") if name in found
    }


def test_several_volumes_in_a_transaction_are_a_commit_each(fs, commits):
    with fs.transaction:
        fs.pipe({"data/x": b"1", "other/y": b"2"})
        fs.pipe({"data/z": b"3", "other/w": b"4"})

    assert 1 == commits()
    assert {"y": b"2", "w": b"4"} == contents("other")
    assert 1 == len(head("other").log_sync())


def test_writing_makes_a_volume(fs):
    fs.pipe_file("fresh/d/x", b"1")
    fs.mkdir("empty")
    fs.makedirs("deep/er/est")

    assert ["data", "deep", "empty", "fresh"] == fs.ls("", detail=False)
    assert ({"d/x": b"1"}, {}) == (contents("fresh"), contents("empty"))
    assert fs.isdir("deep/er/est")
    with pytest.raises(FileExistsError):
        fs.mkdir("empty")
    fs.makedirs("empty", exist_ok=True)


@pytest.mark.parametrize("mode", ["wb", "ab", "xb", "r+b", "w+b", "a+b", "x+b"])
def test_modes_are_those_of_local_files(fs, commits, tmp_path, mode):
    name = "new" if "x" in mode else "d/b.txt"
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.txt").write_bytes(b"bb")
    with open(tmp_path / name, mode) as local, fs.open(f"data/{name}", mode) as file:
        for each in (local, file):
            each.write(b"123")
            each.seek(1)
            each.write(b"x")
            each.seek(0, os.SEEK_END)
            each.truncate(each.tell() - 1) if "a" not in mode else None
            if "+" in mode:
                each.seek(0)
                assert each.read(2)
        assert local.tell() == file.tell()

    assert (tmp_path / name).read_bytes() == contents()[name]
    assert 1 == commits()


def test_a_file_is_written_when_it_is_closed_and_well(fs, commits, left_behind):
    def write_and_fail(mode: str, data: bytes | str) -> None:
        with fs.open("data/x", mode) as file:
            file.write(data)
            raise ZeroDivisionError

    def write_and_forget() -> None:
        fs.open("data/x", "wb").write(b"lost")
        gc.collect()

    with pytest.raises(ZeroDivisionError):
        write_and_fail("wb", b"half")
    with pytest.raises(ZeroDivisionError):
        write_and_fail("w", "half")
    with pytest.warns(ResourceWarning, match="vol://data/x was never closed"):
        write_and_forget()
    assert 0 == commits() and not fs.exists("data/x")
    assert [] == left_behind()

    with fs.open("data/x", "w", encoding="utf-16") as file:
        file.write("é")
        assert not fs.exists("data/x")
    assert "é" == fs.read_text("data/x", encoding="utf-16")
    with fsspec.open("vol://data/z.gz", "wt", compression="infer") as file:
        file.write("packed")
    fs.invalidate_cache()
    assert b"\x1f\x8b" == fs.cat("data/z.gz")[:2]
    file = fs.open("data/later", "wb", autocommit=False)
    file.write(b"1")
    file.close()
    assert not fs.exists("data/later")
    file.commit()
    assert b"1" == fs.cat("data/later")


def test_programs_that_seek_while_they_write(fs):
    with fs.open("data/a.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner", BIG)

    with fs.open("data/a.zip") as file, zipfile.ZipFile(file) as archive:
        assert BIG == archive.read("inner")


def test_errors_are_those_of_a_local_file_system(fs, version, commits):
    fixed = fs._strip_protocol(url_of(version.locator))
    for call, kind in [
        (lambda: fs.open("data/d", "wb"), IsADirectoryError),
        (lambda: fs.pipe_file("data/d", b""), IsADirectoryError),
        (lambda: fs.pipe_file("data", b""), IsADirectoryError),
        (lambda: fs.pipe_file("", b""), IsADirectoryError),
        (lambda: fs.open("data/a.txt/x", "wb"), NotADirectoryError),
        (lambda: fs.pipe_file("data/a.txt/x/y", b""), NotADirectoryError),
        (lambda: fs.makedirs("data/a.txt/x"), NotADirectoryError),
        (lambda: fs.mkdir("data/d"), FileExistsError),
        (lambda: fs.mkdir("data/a.txt"), FileExistsError),
        (lambda: fs.makedirs("data/a.txt", exist_ok=True), FileExistsError),
        (lambda: fs.mkdir("data/not/there", create_parents=False), FileNotFoundError),
        (lambda: fs.open("data/a.txt", "xb"), FileExistsError),
        (lambda: fs.pipe_file("data/a.txt", b"", mode="create"), FileExistsError),
        (lambda: fs.open("data/nothing", "r+b"), FileNotFoundError),
        (lambda: fs.rm("data/nothing"), FileNotFoundError),
        (lambda: fs.rm("nothing", recursive=True), FileNotFoundError),
        (lambda: fs.rm("data/d"), IsADirectoryError),
        (lambda: fs.rm_file("data/nothing"), FileNotFoundError),
        (lambda: fs.rmdir("data/a.txt"), NotADirectoryError),
        (lambda: fs.rmdir("data/d"), OSError),
        (lambda: fs.rmdir("data"), OSError),
        (lambda: fs.cp("data/nothing", "data/x"), FileNotFoundError),
        (lambda: fs.cp_file("data/a.txt", "data/d"), IsADirectoryError),
        (lambda: fs.mv("data/nothing", "data/x"), FileNotFoundError),
        (lambda: fs.touch("data/d", truncate=False), IsADirectoryError),
        (lambda: fs.pipe_file("data/" + "x" * 256, b""), OSError),
        (lambda: fs.pipe_file("data/../x", b""), OSError),
        (lambda: fs.pipe_file("no volume/x", b""), OSError),
    ]:
        with pytest.raises(kind):
            call()
    for call in [
        lambda: fs.pipe_file(f"{fixed}/x", b""),
        lambda: fs.open(f"data~{version.version}/a.txt", "wb"),
        lambda: fs.rm(f"{fixed}/a.txt"),
        lambda: fs.mkdir(f"{fixed}/x"),
        lambda: fs.mv(f"{fixed}/a.txt", "data/x"),
    ]:
        with pytest.raises(OSError, match="fixed version") as caught:
            call()
        assert 30 == caught.value.errno  # EROFS
    assert 0 == commits()


def test_nothing_of_a_call_that_fails_half_way_is_committed(fs, commits, tmp_path):
    write(tmp_path / "in", {"d": b"a file where the volume has a directory", "x": b""})

    with pytest.raises(IsADirectoryError):
        fs.put(str(tmp_path / "in") + "/", "data/", recursive=True)
    with pytest.raises(IsADirectoryError):
        fs.pipe({"data/x": b"", "data/d": b""})
    with pytest.raises(FileNotFoundError):
        fs.rm(["data/a.txt", "data/nothing"])

    assert 0 == commits()
    assert fs.exists("data/a.txt") and not fs.exists("data/x")


def test_symlinks_and_attributes_survive_writing():
    volume = Volume.new("linked")
    with volume.mounted_sync(driver="copy") as path:
        (path / "d").mkdir()
        (path / "d" / "file").write_bytes(b"1234")
        (path / "d" / "file").chmod(0o750)
        (path / "link").symlink_to("d/file")
    fs = VolumeFileSystem()

    fs.pipe_file("linked/link", b"through")
    fs.cp("linked/link", "linked/copy")
    fs.cp("linked", "linked/d/all", recursive=True, maxdepth=1)
    assert b"through" == fs.cat("linked/d/file") == fs.cat("linked/copy") and fs.islink("linked/link")
    assert 0o100750 == fs.info("linked/d/file")["mode"] == fs.info("linked/copy")["mode"]
    with fs.open("linked/link", "ab") as file:
        file.write(b"!")
    assert b"through!" == fs.cat("linked/d/file")
    before = fs.info("linked/d/file")["mtime"]
    fs.touch("linked/link", truncate=False)
    assert before < fs.info("linked/d/file")["mtime"]
    fs.rm("linked/link")
    assert fs.exists("linked/d/file") and not fs.exists("linked/link")
    fs.mv("linked/d", "linked/e", recursive=True)
    assert 0o100750 == fs.info("linked/e/file")["mode"]


def test_rm_goes_through_no_symlink(fs):
    volume = Volume.new("linked")
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"keep/file": b"", "gone/x": b""})
        (path / "gone" / "link").symlink_to("../keep")

    fs.rm("linked/gone", recursive=True)

    assert {"keep/file": b""} == contents("linked")
    fs.rm("linked", recursive=True)
    assert [] == fs.ls("linked") and fs.isdir("linked")


def test_between_volumes_and_versions(fs, version, commits):
    fs.pipe_file("data/a.txt", b"newer")
    fs.cp(f"data~{version.version}/a.txt", "data/older")
    fs.cp("data/d", "other/", recursive=True)
    fs.mv("data/big.bin", "other/big.bin")
    fs.cp(f"data~{version.version}/d", "data/was", recursive=True)

    assert b"a" == fs.cat("data/older") and not fs.exists("data/big.bin")
    assert {"d/b.txt": b"bb", "d/e/c.bin": b"\0\1\2", "big.bin": BIG} == contents("other")
    assert b"bb" == fs.cat("data/was/b.txt")


def test_odd_names_are_written(fs, tmp_path):
    names = [name for name in ODD_NAMES if b"*" not in name]
    fs.pipe({f"odd/d/{to_text(name)}": name for name in names})
    fs.pipe({"odd/[1]": b"x"})
    assert sorted(names) == sorted(os.fsencode(entry.name) for entry in head("odd").iterdir_sync("/d"))

    fs.get("odd/d", str(tmp_path / "out"), recursive=True)
    assert sorted(names) == sorted(map(os.fsencode, os.listdir(tmp_path / "out")))
    fs.put(str(tmp_path / "out"), "odd/again", recursive=True)
    assert sorted(names) == sorted(os.fsencode(entry.name) for entry in head("odd").iterdir_sync("/again"))


def test_large_files_do_not_go_through_memory(fs, tmp_path):
    size = 200 << 20
    with fs.open("data/large", "wb") as file:
        file.truncate(size)
        file.seek(100 << 20)
        file.write(b"middle")

    assert size == fs.info("data/large")["size"]
    assert b"\0middle\0" == fs.cat_file("data/large", (100 << 20) - 1, (100 << 20) + 7)


def test_by_coroutines(version, commits):
    async def write_and_fail(fs: VolumeFileSystem) -> None:
        async with await fs.open_async("data/not", "wb") as file:
            await file.write(b"23")
            raise ZeroDivisionError

    async def work() -> None:
        fs = VolumeFileSystem(asynchronous=True)
        await fs._pipe_file("data/x", b"1")
        async with await fs.open_async("data/s", "wb") as file:
            await file.write(b"23")
            assert 2 == file.tell()
        with pytest.raises(ZeroDivisionError):
            await write_and_fail(fs)
        await fs._mv("data/x", "data/y")
        await fs._rm("data/a.txt")
        await fs._makedirs("data/q/r")
        assert ["data/y", "data/s"] == sorted(await fs._glob("data/[sy]"), reverse=True)

    asyncio.run(work())
    assert 5 == commits()
    assert (b"1", b"23") == (contents()["y"], contents()["s"])


def test_threads_that_write_through_one_instance_lose_nothing(fs, commits):
    start = threading.Barrier(8)

    def write_some(number: int) -> None:
        start.wait()
        for each in range(3):
            fs.pipe_file(f"data/{number}/{each}", b"%d" % each)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_some, range(8)))

    assert 24 == commits()
    assert {f"{n}/{e}": b"%d" % e for n in range(8) for e in range(3)}.items() <= contents().items()


def test_a_forked_child_writes_with_its_parents_instance(fs, commits):
    fs.pipe_file("data/parent", b"1")
    fs._versions.committing.acquire()  # as by another thread, which the child has not got
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fs.pipe_file("data/child", b"2")
            fs.pipe({"data/child2": b"3", "data/child3": b"4"})
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitpid(child, 0)[1]
    fs._versions.committing.release()

    assert 3 == commits()
    fs.invalidate_cache()
    assert b"2" == fs.cat("data/child")


def test_the_log_says_what_an_option_says(fs):
    VolumeFileSystem(message="from a test").pipe_file("data/x", b"")

    assert "from a test" == head().message
    fs.pipe_file("data/y", b"")
    assert "vol://" in head().message


def test_what_a_dead_process_left_is_removed(fs, left_behind, tmp_path):
    child = os.fork()
    if child == 0:
        fs.open("data/x", "wb").write(b"never closed")
        os._exit(0)
    os.waitpid(child, 0)
    assert left_behind()

    fs.open("data/y", "wb").close()

    assert [] == left_behind()
    assert Path(tmp_path).is_dir()


def test_a_mapping_is_written(fs, commits):
    mapping = fs.get_mapper("data/map", create=True)
    mapping["a/b"] = b"1"
    mapping.setitems({"c": b"2", "d": b"3"})
    del mapping["c"]

    assert {"a/b": b"1", "d": b"3"} == dict(fs.get_mapper("data/map"))
    with fs.transaction:
        mapping.clear()
        mapping["e"] = b"4"
    assert {"e": b"4"} == dict(mapping)


def test_what_others_removed_meanwhile_is_removed(fs, commits):
    with fs.transaction:
        fs.rm("data/a.txt")
        fs.pipe_file("data/x", b"1")
        VolumeFileSystem(message="another").rm("data/a.txt")

    assert 2 == commits()
    assert "a.txt" not in contents() and b"1" == contents()["x"]


def test_processes_that_write_to_one_head_lose_nothing(fs, commits):
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                for each in range(3):
                    fs.pipe({f"data/{number}/{each}": b"%d" % each, f"data/shared/{number}-{each}": b""})
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [0] * 4 == [os.waitpid(child, 0)[1] for child in children]

    assert 12 == commits()
    assert {f"{n}/{e}": b"%d" % e for n in range(4) for e in range(3)}.items() <= contents().items()
