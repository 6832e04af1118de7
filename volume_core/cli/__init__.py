"""The `volume` command: a door; what it does is the facade's."""
