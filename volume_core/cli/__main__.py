"""`python -m volume_core.cli` is `volume`."""

from volume_core.cli.main import main

main(prog_name="volume")
