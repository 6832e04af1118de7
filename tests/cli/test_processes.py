"""The command in processes of its own: signals, pipes, the demo, the script of the documentation."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from volume_core.parts.state import State

VOLUME = [sys.executable, "-m", "volume_core.cli"]
DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


def run(*arguments: str | Path, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    command = [*VOLUME, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=120, **options)


@pytest.fixture(params=[pytest.param("kernel", marks=pytest.mark.fuse), "copy"])
def driver(request) -> str:
    return request.param


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_mount_in_the_foreground_ends_with_a_signal(locator, driver, ending):
    with subprocess.Popen(
        [*VOLUME, "mount", "--driver", driver, locator], stdout=subprocess.PIPE, text=True
    ) as process:
        path = Path(process.stdout.readline().strip())
        there = (path / "hello.txt").read_text()
        process.send_signal(ending)
        code = process.wait(30)

    assert ("hello\n", 0) == (there, code)
    assert not path.exists()


def test_what_was_written_in_the_foreground_is_kept_and_named(locator, driver):
    command = [*VOLUME, "mount", "--rw", "--driver", driver, locator]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        path = Path(process.stdout.readline().strip())
        (path / "new.txt").write_text("new")
        refused = run("commit", path, check=False)
        process.send_signal(signal.SIGINT)
        remark = process.stderr.read()
    [work_id] = re.findall(r"volume commit ([0-9a-f]+)", remark)

    assert (9, True) == (refused.returncode, f"in use by process {process.pid}" in refused.stderr)
    made = run("commit", work_id).stdout.strip()
    assert "new" == run("cat", f"{made}:/new.txt").stdout


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_its_starter_had_ignored_does_not_end_a_mount(locator, driver, ignored):
    # As nohup does with the first, and a shell with the second for what a script starts with "&".
    command = [*VOLUME, "mount", "--driver", driver, locator]
    start = f"import os, signal; signal.signal({int(ignored)}, signal.SIG_IGN); os.execv({command[0]!r}, {command!r})"
    with subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True) as process:
        path = Path(process.stdout.readline().strip())
        process.send_signal(ignored)
        caught = int(re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1], 16)
        there = (path / "hello.txt").read_text()
        process.terminate()
        code = process.wait(30)

    assert ("hello\n", 0) == (there, code)
    assert not caught >> (ignored - 1) & 1
    assert not path.exists()


def test_a_foreground_mount_that_is_killed_leaves_nothing_mounted(locator, driver):
    with subprocess.Popen(
        [*VOLUME, "mount", "--driver", driver, locator], stdout=subprocess.PIPE, text=True
    ) as process:
        path = Path(process.stdout.readline().strip())
        process.kill()
        process.wait(30)
    deadline = time.monotonic() + 20
    while json.loads(run("status", "--json").stdout)["mounts"]:
        assert time.monotonic() < deadline

    assert not path.exists()


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(4 << 20))
    made = run("cp", big, f"{run('new', 'data').stdout.strip()}:/").stdout.strip()
    with subprocess.Popen([*VOLUME, "cat", f"{made}:/big"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()

    assert b"" == said
    assert 0 == process.returncode


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--json"], ["ls", "--help"]], ids=" ".join)
def test_what_cannot_be_printed_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        command = [*VOLUME, *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)

    assert (1, "volume: No space left on device\n") == (done.returncode, done.stderr)


def test_state_that_cannot_be_made_names_the_setting(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("doctor", check=False, env=os.environ | {"VOLUME_STATE_DIR": str(tmp_path / "file" / "state")})

    assert 1 == done.returncode
    assert re.fullmatch(r"volume: \S+/file/state: Not a directory; .*set \$VOLUME_STATE_DIR.*\n", done.stderr)


def test_the_script_of_the_documentation_runs(tmp_path):
    [script] = re.findall(r"```bash\n(locator=.*?)```", DOCS, re.DOTALL)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "input").write_text("1 2 3")
    (tmp_path / "train.py").write_text(
        "import pathlib, sys\nroot = pathlib.Path(sys.argv[1])\n"
        "(root / 'model').write_text(str(sum(map(int, (root / 'input').read_text().split()))))\n"
    )
    (tmp_path / "bin").mkdir()
    for name, command in {"volume": VOLUME, "python": [sys.executable]}.items():
        shim = tmp_path / "bin" / name
        shim.write_text(f'#!/bin/sh\nexec {" ".join(command)} "$@"\n')
        shim.chmod(0o755)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(root)}
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=environment, check=True, timeout=120)

    assert "6" == (tmp_path / "model").read_text()


def test_the_progress_bar_is_for_terminals_only(tmp_path):
    (tmp_path / "data").write_bytes(b"x" * 1000)
    made = run("cp", tmp_path / "data", f"{run('new', 'data').stdout.strip()}:/")

    assert "" == made.stderr
    assert 1 == len(made.stdout.splitlines())


@pytest.mark.slow
def test_the_demo_on_a_small_tree_by_each_driver(driver):
    tree = Path(sysconfig.get_path("stdlib")) / "json"
    said = run("demo", "--driver", driver, "--tree", tree).stdout

    assert f"driver: {driver}" in said
    assert "identical" in said
    assert 3 == len(re.findall(r"demo-\d+-\d+-\d+\S* [0-9a-f]{12}", said))
    [first] = re.findall(r"volume tree -L 2 (\S+)", said)
    assert "lib" in run("tree", "-L", "2", first).stdout


@pytest.mark.slow
def test_the_demo_runs_without_any_argument():
    started = run("demo")

    assert "" == started.stderr
    assert "Python ran from the mount" in started.stdout
    assert "identical" in started.stdout
    assert "neither sees the other" in started.stdout
    status = json.loads(run("status", "--json").stdout)
    assert ([], []) == (status["mounts"], status["work"])
    assert int(re.search(r"(\d+) files compared", started.stdout)[1]) > 1000


@pytest.mark.slow
def test_the_demo_fails_if_one_byte_differs(tmp_path):
    """The comparison is real: a file that changes while the demo runs is found out."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "data").write_bytes(b"before")
    script = (
        "import sys\nfrom volume_core.cli import demo\n"
        "compare = demo._compare\n"
        f"demo._compare = lambda *a: (open({str(tree / 'data')!r}, 'r+b').write(b'after!'), compare(*a))[1]\n"
        f"import os; os.environ['COLUMNS'] = '200'\nfrom volume_core.cli.main import main\n"
        f"main(['demo', '--driver', 'copy', '--tree', {str(tree)!r}])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)

    assert 1 == ran.returncode
    assert ran.stderr.startswith("volume: ")
    assert "data" in ran.stderr
    assert [] == [each for each in State.default().work.iterdir() if not each.name.startswith(".")]
