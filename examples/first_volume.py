"""The first ten lines: make a volume, work in it, commit, and mount the version again.

Run it: python examples/first_volume.py
"""

from volume_core import Volume


def main() -> None:
    """Write a file in one version, change it in a fork, and read both."""
    volume = Volume.new("first-volume")
    with volume.mounted_sync() as path:  # commits on success, keeps the work on an error
        (path / "hello.txt").write_text("hello from a volume\n")
    version = volume.finalize_sync()

    fork = version.fork_sync("second-volume")
    with fork.mounted_sync() as path, (path / "hello.txt").open("a") as file:
        file.write("and from its fork\n")
    forked = fork.finalize_sync()

    for each in (version, forked):
        with each.mounted_sync() as path:
            print(each.locator, (path / "hello.txt").read_text(), sep="\n")


if __name__ == "__main__":
    main()
