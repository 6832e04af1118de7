"""The door the kernel comes in through: drivers, the supervisor, the FUSE server."""
