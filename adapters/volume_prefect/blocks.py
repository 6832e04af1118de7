"""The block that says where a team's volumes lie: what an entry point of the group `prefect.collections` leads to.

    volume-store/default
        url          s3://team-data/volumes
        credentials  aws-credentials/team    <- a saved block of prefect-aws, prefect-gcp or prefect-azure
        region, cache_size

Why the credentials are a reference: a block that holds another one has a schema that depends on the packages which are
installed where it was registered.  A reference is the same everywhere, is read afresh at each use (so rotated keys
count), and keeps secrets out of this block altogether.

Always true: this block holds no secret; from its first use in a process on the credentials are in that process's
environment, where the mount server, a process of its own, finds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import Field, field_validator, model_validator

from volume_core import NotFoundError, VolumeError
from volume_core.passing.environment import Lease
from volume_core.passing.stores import OpensVolumes, Using
from volume_core.storage.opening import normalize
from volume_prefect.credentials import kind_of, variables_of

_SIZE = re.compile(r"\d+(\.\d+)?\s*[KMGT]?(i?B)?", re.IGNORECASE)
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9-]*/[^/\s]+")


class VolumeStore(OpensVolumes, Block):
    """
    A store for volumes: a bucket or directory, and how to get into it.

    The block named `default` is the store of every volume that names no bucket.

    Example:
        Keep volumes in a bucket, with credentials that are saved already:
        ```python
        from volume_prefect.blocks import VolumeStore

        VolumeStore(url="s3://team-data/volumes", credentials="aws-credentials/team").save("default")

        store = VolumeStore.load("default")
        volume = store.from_name_sync("my-dataset", create_if_missing=True)
        ```
    """

    _block_type_name: ClassVar[str | None] = "Volume Store"
    _block_type_slug: ClassVar[str | None] = "volume-store"
    _description: ClassVar[str | None] = "A store for volumes: a bucket or directory, and how to get into it."

    url: str = Field(
        title="URL",
        description="Where the volumes lie: s3://bucket/prefix, gs://, az://, abfs:// or a directory.",
        examples=["s3://team-data/volumes"],
    )
    credentials: str | None = Field(
        default=None,
        description=(
            "A saved credentials block, as type/name: aws-credentials, minio-credentials, gcp-credentials or "
            "azure-blob-storage-credentials. Without it the machine's own credentials count."
        ),
        examples=["aws-credentials/team"],
    )
    region: str | None = Field(default=None, description="The bucket's region; goes before that of the credentials.")
    cache_size: str | None = Field(
        default=None,
        title="Cache size",
        description="How much of remote contents a machine keeps: bytes, or with a unit, like 20G.",
        examples=["20G"],
    )

    @field_validator("url")
    @classmethod
    def _one_spelling(cls, url: str) -> str:
        return normalize(url)

    @field_validator("credentials", mode="before")
    @classmethod
    def _as_reference(cls, given: Any) -> Any:
        if isinstance(given, Block):
            if (name := given._block_document_name) is None:
                raise ValueError("save the credentials block first: the store refers to it by its name")
            return f"{given.get_block_type_slug()}/{name}"
        return given or None

    @field_validator("cache_size")
    @classmethod
    def _a_size(cls, size: str | None) -> str | None:
        if size and not _SIZE.fullmatch(size.strip()):
            raise ValueError(f"{size!r} is no size: give bytes, or a number with a unit, like 500M or 20G")
        return size or None

    @model_validator(mode="after")
    def _credentials_are_of_this_store(self) -> VolumeStore:
        if self.credentials is None:
            return self
        if not _REFERENCE.fullmatch(self.credentials):
            raise ValueError(f"{self.credentials!r} names no saved block: give type/name, like aws-credentials/team")
        try:
            schemes = kind_of(self.credentials).schemes
        except VolumeError as error:
            raise ValueError(str(error)) from None
        if self.url.partition("://")[0] not in schemes:
            raise ValueError(f"{self.credentials} is for {', '.join(schemes)}://, and the store is {self.url}")
        return self

    # -- credentials

    def environment(self) -> dict[str, str | None]:
        """Return the variables that this store is opened with, secrets and all: for `env` of a job, for example.

        None: the variable must not be set.  Reads the credentials block from the API.  Raises NotFoundError if it is
        not there, VolumeError if it cannot be used.
        """
        found: dict[str, str | None] = {}
        if self.credentials is not None:
            found |= variables_of(self.credentials, _document(self.credentials))
        if self.region:
            found["AWS_REGION"] = self.region
        if self.cache_size:
            found["VOLUME_CACHE_LIMIT"] = self.cache_size
        return found

    def use(self) -> Using[VolumeStore]:
        """Put the credentials into this process's environment; as a `with` statement, for its length.

        Raises VolumeError where another store's credentials of the same kind are in use, and as `environment` does.
        """
        return Using(self, Lease(self._owner, self.environment()))

    @property
    def _owner(self) -> str:
        name = self._block_document_name
        return f"volume-store/{name}" if name else f"the store {self.url}"

    def get_in(self) -> None:
        """Have the credentials in this process's environment for good.  Raises what `use` does."""
        self.use()


def load_store(name: str = "default") -> VolumeStore | None:
    """Return the block `volume-store/<name>`, None if there is none.  From any thread, in an event loop too."""
    document = _find(f"volume-store/{name}", include_secrets=False)
    return None if document is None else VolumeStore._load_from_block_document(document)


def store_for(url: str) -> VolumeStore | None:
    """Return the block whose store *url* is, or lies in (the longest one); None if no block says anything of it."""
    with get_client(sync_client=True) as client:
        documents = client.read_block_documents_by_type("volume-store", include_secrets=False)
    fitting = [each for each in documents if _lies_in(url, str(each.data.get("url", "")))]
    if not fitting:
        return None
    # Of two blocks for one store the one called `default` goes first, then by name: the same everywhere.
    best = min(fitting, key=lambda each: (-len(each.data["url"]), each.name != "default", each.name or ""))
    return VolumeStore._load_from_block_document(best)


def _lies_in(url: str, store: str) -> bool:
    return bool(store) and (url == store or url.startswith(f"{store}/"))


def _document(reference: str) -> Mapping[str, Any]:
    found = _find(reference, include_secrets=True)
    if found is None:
        raise NotFoundError(f"there is no block {reference}: save it, or change the store's credentials")
    data: Mapping[str, Any] = found.data
    return data


def _find(reference: str, *, include_secrets: bool) -> Any:
    slug, _, name = reference.partition("/")
    with get_client(sync_client=True) as client:
        try:
            return client.read_block_document_by_name(name, slug, include_secrets=include_secrets)
        except ObjectNotFound:
            return None
