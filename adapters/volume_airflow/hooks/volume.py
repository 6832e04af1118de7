"""The hook of connections of type `volume`: a store, and how to get into it.

    AIRFLOW_CONN_VOLUME_DEFAULT='{"conn_type": "volume", "host": "s3://team/volumes", "extra": {"aws_conn_id": "team"}}'
    AIRFLOW_CONN_VOLUME_DEFAULT='volume://s3://team/volumes?aws_conn_id=team'

Always true: a connection is read anew for each hook, so rotated keys count; to be tested changes nothing in a store.
"""

from __future__ import annotations

import functools
import importlib
import threading
import uuid
from collections.abc import Mapping
from typing import Any

from volume_airflow import stores
from volume_airflow.compat import BaseHook
from volume_airflow.stores import VolumeStore
from volume_airflow.turns import turns
from volume_core import NotFoundError, ROVolume, RWVolume, StorageError, Volume, VolumeError, VolumeInfo
from volume_core.parts.landing import LandingPolicy
from volume_core.passing.stores import Using
from volume_core.plugins.manager import plugins
from volume_core.storage.probing import PROBES, broken, probe, read_format
from volume_core.storage.protocol import Store
from volume_core.storage.retrying import Policy, Retrying

_PATIENCE_S = 20.0
_ONCE = Policy(attempts=1)


class VolumeHook(BaseHook):
    """
    A store for volumes, as a connection says it.

    :param volume_conn_id: the connection, of type `volume`
    """

    conn_name_attr = "volume_conn_id"
    default_conn_name = stores.DEFAULT_CONNECTION
    conn_type = "volume"
    hook_name = "Volume store"

    def __init__(self, volume_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.volume_conn_id = volume_conn_id

    @functools.cached_property
    def store(self) -> VolumeStore:
        """The store that the connection is of.

        Raises NotFoundError where there is no such connection, VolumeError where it cannot be used, a transient
        StorageError where Airflow does not say.
        """
        return stores.connected(self.volume_conn_id)

    def get_conn(self) -> VolumeStore:
        """Return the store; its credentials are in this process's environment from now on.

        Raises what `store` does, and VolumeError where another store's credentials are in use.
        """
        self.store.get_in()
        return self.store

    def use(self) -> Using[VolumeStore]:
        """Put the credentials into this process's environment; as a `with` statement, for its length."""
        return self.store.use()

    def environment(self) -> dict[str, str | None]:
        """Return the variables that the store is opened with, secrets and all; None: it must not be set."""
        return self.store.environment()

    # -- volumes

    def volume(self, name: str | None = None) -> RWVolume:
        """Return a writable volume without any version yet, as Volume.new does, in this store."""
        return self.store.volume(name)

    def from_name(
        self,
        name: str,
        *,
        version: str | None = None,
        create_if_missing: bool = False,
        on_conflict: LandingPolicy = "last-write-wins",
    ) -> RWVolume | ROVolume:
        """Open the volume *name* as Volume.from_name does: to write, with *version* (a tag or an id) to read."""
        return self.store.from_name_sync(
            name, version=version, create_if_missing=create_if_missing, on_conflict=on_conflict
        )

    def volumes(self) -> list[VolumeInfo]:
        """Return every volume of the store, by name."""
        return self.store.volumes_sync()

    def head(self, name: str) -> ROVolume | None:
        """Return the version that the head of the volume *name* names; None where there is no such volume."""
        try:
            found = self.from_name(name)
        except NotFoundError:
            return None
        assert isinstance(found, RWVolume)
        return found.committed

    def commit(self, volume: RWVolume, message: str = "", *, labels: Mapping[str, str] | None = None) -> ROVolume:
        """Commit *volume*, which is of this store, and return the version; its mount stays."""
        self.store.get_in()
        return volume.commit_sync(message, labels=labels)

    def delete(self, name: str) -> None:
        """Delete the volume *name* and all its versions.  Raises NotFoundError where there is none."""
        self.store.get_in()
        Volume.delete_sync(name, self.store.url)

    # -- the form

    def test_connection(self) -> tuple[bool, str]:
        """Read and write in the store, and clean up; return whether that went well, and what to say of it.

        Takes 20 seconds at most.
        """
        said: list[tuple[bool, str]] = []
        # Here and not in the thread: the connection that is tested may be this context's alone.
        store = self._readable()
        if isinstance(store, str):
            return False, store
        self._ask(store, said)
        return said[0] if said else (False, f"{store.url} gave no answer in {_PATIENCE_S:g} s: check the endpoint")

    def _ask(self, store: VolumeStore, said: list[tuple[bool, str]]) -> None:
        """Ask *store* in a thread, and put into *said* what came of it, if it came in time."""

        def ask() -> None:
            try:
                with turns.taken_by(store):  # pages of this process may need other keys
                    said.append(_tried(_opened(store)))
            except (VolumeError, ValueError) as error:
                said.append((False, str(error)))
            except Exception as error:  # a form is answered, whatever a library raises
                said.append((False, f"{type(error).__name__}: {error}"))

        thread = threading.Thread(target=ask, daemon=True, name="volume-test-connection")
        thread.start()
        thread.join(_PATIENCE_S)

    def _readable(self) -> VolumeStore | str:
        try:
            return self.store
        except (VolumeError, ValueError) as error:
            return "; ".join([str(error), *getattr(error, "__notes__", ())])

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return how the form of Airflow 2 shows the fields of a connection."""
        from volume_airflow.provider_info import UI_FIELD_BEHAVIOUR, conn_fields

        placeholders = {**UI_FIELD_BEHAVIOUR["placeholders"]}
        placeholders |= {name: each["description"] for name, each in conn_fields().items() if each.get("description")}
        return {
            "hidden_fields": UI_FIELD_BEHAVIOUR["hidden-fields"],
            "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
            "placeholders": placeholders,
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the fields that the form of Airflow 2 has besides those of any connection."""
        # Airflow 2 has both; 3 does not ask.
        widgets = importlib.import_module("flask_appbuilder.fieldwidgets")
        wtforms = importlib.import_module("wtforms")
        from volume_airflow.provider_info import conn_fields

        fields = {}
        for name, each in conn_fields().items():
            secret = each["schema"].get("format") == "password"
            widget = widgets.BS3PasswordFieldWidget() if secret else widgets.BS3TextFieldWidget()
            fields[name] = (wtforms.PasswordField if secret else wtforms.StringField)(each["label"], widget=widget)
        return fields


def _opened(store: VolumeStore) -> Store:
    """The store, which does not try again: whoever waits for a form wants the first error."""
    opened = plugins().open_store(store.url, {"region": store.region} if store.region else {})
    return Retrying(opened.inner, _ONCE) if isinstance(opened, Retrying) else opened


def _tried(store: Store) -> tuple[bool, str]:
    found = read_format(store)
    if found is None:  # nobody has written there yet: what it promises is found out, and not written down
        found = probe(store)
        if lacks := broken(found):
            return False, f"{store.url}: {'; '.join(lacks)}"
        return True, f"{store.url} can be read and written; there are no volumes yet"
    name = f"{PROBES}{uuid.uuid4().hex}/connection"
    try:
        store.put(name, b"written to test a connection")
        store.delete(name)
    except StorageError as error:
        return True, f"{store.url} can be read, but not written: {error}"
    return True, f"{store.url} can be read and written"
