"""Our commands in flyte 2's command line, which says the verb first: `flyte create volume` is `volume new`.

    flyte volume ...              everything that `volume` does
    flyte create volume [NAME]    volume new
    flyte get volume [VERSION]    volume ls; of a version: volume show
    flyte delete volume NAME      volume rm
    flyte mount volume VERSION    volume mount
    flyte unmount volume PATH     volume unmount
    flyte explore volume VERSION  volume explore

Always true: nothing of flyte is imported here; each command is made when flyte asks for it (PEP 562), since flyte loads
what belongs to the verb that was typed.
"""

from __future__ import annotations

import click

from volume_core.cli.main import guest, main

NOUN = "volume"
_OURS = {"create": "new", "delete": "rm", "mount": "mount", "unmount": "unmount", "explore": "explore"}
# Flyte has the other verbs; these are groups of their own.
_GROUPS = {
    "explore": "Look into things, interactively.",
    "mount": "Make things files.",
    "unmount": "Take down what was mounted.",
}


def __getattr__(name: str) -> click.Command:
    if name not in _OURS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    command = guest(_OURS[name], NOUN)
    return click.Group(name, {NOUN: command}, help=_GROUPS[name]) if name in _GROUPS else command


@click.command(NOUN)
@click.argument("version", required=False)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def get(version: str | None, json_: bool) -> None:
    """List the volumes of the default store; with a VERSION say what it is.

    A VERSION is a locator, the NAME of a volume, or NAME:REF.
    """
    arguments = [*(["show", version] if version is not None else ["ls"]), *(["--json"] if json_ else [])]
    main.main(arguments, prog_name="flyte get volume", standalone_mode=False)
