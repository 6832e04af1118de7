"""The record: what a volume is as a value, the same bytes wherever and whenever one version's is made.

Why it holds so little: engines pass it between tasks and key their caches on it.  So it names one
version and says what that version's manifest says, and nothing about who asks, where, or when.

Always true: the fields below, in this order, are the whole JSON; `index` alone is enough to find the
version and everything in it; nothing here is a secret.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from volume_core.facade.twins import awaitable_of_class
from volume_core.format.manifest import Action, Manifest
from volume_core.format.names import Locator, validate_name
from volume_core.storage.opening import normalize, split_url, store_url

ActionRef = Action
METADATA_STORE_TYPES = ("sqlite",)


def _checked(locator: str) -> str:
    Locator.parse(locator)
    return locator


class Record(BaseModel):
    """The fields of every volume.  DO NOT REORDER: engines key their caches on the JSON's bytes."""

    # frozen: a version's record never changes, and a writer's only by what it commits.  Inputs are not repeated in
    # errors: a URL may hold a key.
    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, ignored_types=(awaitable_of_class,)
    )

    kind: Literal["volume/v1"] = "volume/v1"
    name: Annotated[str, AfterValidator(validate_name)] = Field(description="the volume's name within its store")
    bucket: str = Field(description="what follows :// in the store's URL; of a directory, its path")
    storage: str = Field(description="s3, gs, wasb, file or memory; the scheme where a plugin brings another")
    region: str | None = Field(None, description="the bucket's region, where one was given")
    index: Annotated[str, AfterValidator(_checked)] | None = Field(
        None, description="the locator, URL of the manifest; null before the first commit"
    )
    metadata_store_type: str = Field("sqlite", description="what the layers' indexes are")
    used_bytes: int = Field(0, description="sum of the files' sizes, in bytes")
    inode_count: int = Field(0, description="files, directories and the like in it, its root included")
    index_bytes: int = Field(0, description="size of its unpacked indexes, in bytes: what a mount needs in its cache")
    message: str = Field("", description="what the commit was for")
    produced_by: ActionRef | None = Field(None, description="the task that committed it")
    parent_produced_by: ActionRef | None = Field(None, description="the task that committed what it was made from")

    @property
    def store_url(self) -> str:
        """The URL of the store that the volume lies in."""
        if self.index is not None:
            return Locator.parse(self.index).store
        return normalize(self.bucket) if "://" in self.bucket else store_url(self.storage, self.bucket, "")


def place(url: str, region: str | None) -> dict[str, Any]:
    """Return the fields that say which store: *url* taken apart."""
    storage, bucket = split_url(url)
    return {"bucket": bucket, "storage": storage, "region": region}


def fields_of(locator: Locator, manifest: Manifest) -> dict[str, Any]:
    """Return the fields of the version at *locator*: a function of these two alone."""
    return {
        "name": manifest.volume,
        **place(locator.store, manifest.region),
        "index": str(locator),
        "metadata_store_type": manifest.metadata_store_type,
        "used_bytes": manifest.used_bytes,
        "inode_count": manifest.inode_count,
        "index_bytes": manifest.index_bytes,
        "message": manifest.message,
        "produced_by": manifest.produced_by,
        "parent_produced_by": manifest.parent_produced_by,
    }
