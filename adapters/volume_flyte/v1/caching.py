"""Cache hits by what is in a volume, where a version alone is too exact.

    @task(cache=True, cache_version="1")
    def prepare() -> Annotated[RWVolume, VolumeHash]: ...

    @task(cache=True, cache_version="1")
    def train(data: ROVolume) -> float: ...  # runs again only if a file of the volume is another one

By itself a version is the key: what was committed twice, by two runs say, is two keys, though the files are the same.

Always true: equal trees have equal keys, whatever they are called and wherever they lie.
"""

from __future__ import annotations

from flytekit import HashMethod

from volume_core.errors import VolumeError
from volume_core.volumes import ROVolume, RWVolume, Volume
from volume_flyte.v1.handing import cause_of, lookup_failed


def content_key(volume: Volume | None) -> str:
    """Return the key of *volume*'s tree, or of the last commit of a writer's; a fixed one for None."""
    if volume is None:
        return "none"
    version = volume.committed if isinstance(volume, RWVolume) else volume
    if not isinstance(version, ROVolume):
        raise VolumeError(f"{volume!r} has no version, and so no contents to make a key of")
    try:
        return version.content_digest_sync()
    except Exception as error:
        told = lookup_failed(error)
        raise told from cause_of(told, error)


VolumeHash = HashMethod(content_key)
