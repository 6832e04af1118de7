"""A volume as an asset: one name and one URI, made by one rule, so that all who name a volume mean one asset.

    vol://s3+bucket/prefix/-/NAME     its `vol://` URL: the same in every process, whatever its default store

Airflow knows an asset by its name and its URI together and lets neither be used twice, so two spellings of one volume
would be two assets, of which one is never updated.  The name is the URI, for that is the name which Airflow gives an
asset whose author gives none: `Asset("vol://...")` is the same asset as volume_asset() of that volume.

Always true: an asset is a volume, never a version, which is in the events' `extra`; Airflow's normalization leaves its
URI as it is, for a store's URL holds no "?" and no "#", and it does not end with a slash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from volume_core.errors import InvalidNameError

if TYPE_CHECKING:
    from volume_airflow.compat import Asset
    from volume_core.facade.addresses import Address

PROTOCOL = "vol"


def volume_asset(name: str, store: str | None = None, **options: Any) -> Asset:
    """Return the asset that is the volume *name* in the store with that URL or directory, by default the default store.

    For `outlets=[...]`, `inlets=[...]` and `schedule=[...]`.  *options* are those of Airflow's Asset (`extra`, `group`,
    `watchers`).  Reads nothing of the volume, which need not exist; without *store* Airflow is asked for the default
    connection, also where a DAG is parsed.  Raises InvalidNameError if *name* cannot name one, and what asking does.
    """
    from volume_core.facade.naming import place_of
    from volume_core.format.names import validate_name

    return _asset(place_of(store).url if store is not None else _default_url(), validate_name(name), options)


def asset_of(store: str, name: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset that is the volume *name* in the store with that URL."""
    return _asset(store, name, {"extra": extra} if extra else {})


def _asset(store: str, name: str, options: dict[str, Any]) -> Asset:
    from volume_airflow import compat

    return compat.Asset(uri_of(store, name), **options)


def uri_of(store: str, name: str) -> str:
    """Return the URI of the volume *name* in the store with that URL, as Airflow has it."""
    return f"{_namespace(store)}/{name}"


def _default_url() -> str:
    """Return where tasks have the volumes that name no store, also where no task runs."""
    from volume_airflow import stores
    from volume_core.facade.naming import place_of

    return stores.default_url() or place_of(None).url


def _namespace(store: str) -> str:
    from volume_core.facade.addresses import store_root

    return f"{PROTOCOL}://{store_root(store)}"


def _address(uri: str) -> Address:
    """Return where *uri* leads; InvalidNameError if nowhere."""
    from volume_core.facade.addresses import parse, strip

    return parse(strip(uri))


def is_volume(uri: str, store: str, name: str) -> bool:
    """Whether the asset with that *uri* is the volume *name* in the store with that URL.

    `vol://NAME` is the volume of the default store of whoever runs the task.
    """
    if not uri.startswith(f"{PROTOCOL}://"):
        return False
    try:
        address = _address(uri)
    except InvalidNameError:
        return False
    if address.volume != name or address.ref or address.path:
        return False
    return bool((address.store or _default_url()) == store)


# -- what the provider info names


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check an asset's URI: it names a volume, not a path in one, and no version of one.  Raises ValueError."""
    text = f"{PROTOCOL}://{uri.netloc}{uri.path}"
    try:
        address = _address(text)
    except InvalidNameError:
        address = None
    if address is None or uri.query or not address.volume or address.path or address.ref:
        raise ValueError(
            f"{uri.geturl()}: an asset is a volume: vol://NAME, or vol://s3+bucket/prefix/-/NAME (volume_asset(name, "
            "store) makes it); versions are in the `extra` of its events"
        )
    return uri


def create_asset(*, name: str, store: str | None = None, extra: dict[str, Any] | None = None) -> Asset:
    """Return volume_asset(name, store): what hooks that report lineage by `scheme="vol"` call."""
    return volume_asset(name, store, **({"extra": extra} if extra else {}))


def to_openlineage(asset: Asset, lineage_context: Any) -> Any:
    """Return OpenLineage's dataset for *asset*: of its store's namespace, with the standard facet of its version."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset, datasource_dataset

    address = _address(asset.uri)
    store = address.store or _default_url()
    facets: dict[str, Any] = {"dataSource": datasource_dataset.DatasourceDatasetFacet(name=store, uri=store)}
    if version := (asset.extra or {}).get("version"):
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=str(version))
    return Dataset(namespace=_namespace(store), name=address.volume, facets=facets)
