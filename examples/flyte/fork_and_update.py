"""Changing what cannot change: fork a version, write to the fork, commit it as the next version.

A fork shares every byte with what it came from; what it costs is what is written to it.

Run it: python examples/flyte/fork_and_update.py
"""

import flyte

from volume_core import ROVolume, Volume
from volume_flyte import fuse_pod_template, with_volume_deps

env = flyte.TaskEnvironment(
    "fork-and-update",
    image=with_volume_deps(flyte.Image.from_debian_base(name="volumes")),
    pod_template=fuse_pod_template(),
)


@env.task
async def first_edition() -> ROVolume:
    """Commit two chapters, with a message, which returning the writer itself would not have."""
    book = Volume.new(name="book")
    pages = await book.mount()
    (pages / "1.md").write_text("# One\n\nIt was a dark night.\n")
    (pages / "2.md").write_text("# Two\n\nThen it was morning.\n")
    return await book.finalize(message="first edition")


@env.task
async def revise(book: ROVolume, name: str, ending: str) -> ROVolume:
    """Write a third chapter into a fork called *name*."""
    draft = await book.fork(name=name)
    pages = await draft.mount()
    (pages / "3.md").write_text(f"# Three\n\n{ending}\n")
    with (pages / "1.md").open("a") as chapter:
        chapter.write("And stormy.\n")
    return await draft.finalize(message=f"with the ending of {name}")


@env.task
async def compare(book: ROVolume, revised: ROVolume) -> str:
    """Say what became different, and where the revision came from."""
    changes = [f"{each.kind.value} /{each.path}" for each in await book.diff(revised)]
    line = [entry.volume.message for entry in await revised.log()]
    return f"{', '.join(changes)}; {' <- '.join(line)}"


@env.task
async def main() -> list[str]:
    """Two revisions of one edition, which knows of neither."""
    book = await first_edition()
    happy = await revise(book, name="happy", ending="They all went home.")
    sad = await revise(book, name="sad", ending="Nobody ever found out.")
    return [await compare(book, happy), await compare(book, sad)]


if __name__ == "__main__":
    flyte.init()
    for line in flyte.run(main).outputs()[0]:
        print(line)
