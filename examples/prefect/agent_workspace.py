"""An agent that keeps its workspace: each flow run goes on where the last one stopped, on whatever machine.

A run that fails leaves the workspace as it was before; every run before it can be looked at, compared and gone back to.

Run it: python examples/prefect/agent_workspace.py
"""

from pathlib import Path

from prefect import flow, task

from volume_core import ROVolume, RWVolume, Volume
from volume_prefect import volumes

WORKSPACE = "agent-workspace"


def plan(workspace: Path) -> list[str]:
    """Return what is left to do: the agent's own notes, written at its first run."""
    todo = workspace / "todo.txt"
    if not todo.exists():
        todo.write_text("outline\ndraft\nreview\n")
    return todo.read_text().splitlines()


@volumes
@task
def step(fails: bool = False) -> RWVolume:
    """Do the next thing on the list; what was written is committed when this ends well, and only then."""
    workspace = Volume.from_name_sync(WORKSPACE, create_if_missing=True)
    path = workspace.mount_sync()
    todo = plan(path)
    if todo:
        with (path / "report.md").open("a") as report:
            report.write(f"## {todo[0]}\n")
        if fails:
            raise RuntimeError("the model did not answer")
        (path / "todo.txt").write_text("".join(f"{each}\n" for each in todo[1:]))
    return workspace


@flow
def agent(fails: bool = False) -> ROVolume:
    """One run of the agent."""
    return step(fails)


def main() -> None:
    """Four runs, of which the second fails: three steps are done, each once."""
    agent()
    failed = agent(fails=True, return_state=True)
    assert failed.is_failed()
    agent()
    last = agent()
    report = b"".join(last.read_file_sync("report.md")).decode()
    print(report)
    assert report == "## outline\n## draft\n## review\n"
    for entry in last.log_sync():
        print(entry.created_at, entry.volume.version[:12], entry.volume.message)
    assert len(last.log_sync()) == 3


if __name__ == "__main__":
    main()
