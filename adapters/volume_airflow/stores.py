"""Where the volumes of Airflow's tasks lie, and who we are there: the connections of type `volume`.

    a task's volume names no bucket   -> default_bucket(): the default connection, else `[volume] store`
    a store is opened in a task       -> reach(url): the connection whose store it is, or lies in (the longest one)
    an operator, hook, trigger asks   -> located(conn_id): the store of that connection, or the default one
    a page shows a version            -> around(url): the connection whose store it is, or lies in

The default connection is the one that `[volume] conn_id` names, `volume_default` if it says nothing.  Tasks have no
list of connections: those that reach() may look at, besides the default one and those used already, are named in
`[volume] connections`.

Always true: to import this does not import Airflow; outside a task nothing is asked unless a connection was named.
Where volumes lie by default is asked once a task instance, each store's credentials once a minute at most.  An API that
does not answer is an error which may pass: elsewhere, on a worker's own disk perhaps, nobody would look for a volume.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from volume_airflow import compat, connections, running
from volume_airflow.turns import turns
from volume_core import NotFoundError, StorageError, VolumeError
from volume_core.passing.environment import Lease
from volume_core.passing.stores import OpensVolumes, Using
from volume_core.storage.opening import normalize

DEFAULT_CONNECTION = "volume_default"
_SECTION = "volume"
_FRESH_S = 60.0
_KNOWN_MAX = 256
_NOT_FOUND = "CONNECTION_NOT_FOUND"

_lock = threading.RLock()
_defaults: OrderedDict[Any, VolumeStore | None] = OrderedDict()  # by task instance
_asked: dict[str, float] = {}  # by URL, when its credentials were looked for
_met: dict[str, str] = {}  # the stores of connections that were used here, by the connection's id


def _renew_lock() -> None:
    # The thread that asked while another one forked does not exist in the child.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


@dataclass(frozen=True)
class VolumeStore(OpensVolumes):
    """A store for volumes, and how to get into it.  Its repr holds no secret.

    url: in its one spelling; region: None if nobody says; conn_id: of the connection, None of a URL in the settings.
    """

    url: str
    region: str | None = None
    conn_id: str | None = None
    variables: connections.Variables = field(default_factory=dict, repr=False, hash=False)

    def environment(self) -> dict[str, str | None]:
        """Return the variables that this store is opened with, secrets and all: for the environment of a pod, say.

        None: the variable must not be set.
        """
        return dict(self.variables)

    def use(self) -> Using[VolumeStore]:
        """Put the credentials into this process's environment; as a `with` statement, for its length.

        Raises VolumeError where another store's credentials of the same kind are in use.
        """
        owner = f"the connection {self.conn_id!r}" if self.conn_id else f"the store {self.url}"
        return Using(self, Lease(owner, self.variables))

    def get_in(self) -> None:
        """Have the credentials in the environment: as they are there already, within `use()` for example, or for good.

        Raises what `use` does.
        """
        if not self.is_used():
            self.use()

    def is_used(self) -> bool:
        """Whether this process's environment has the credentials, whoever has put them there."""
        return all(os.environ.get(name) == value for name, value in self.variables.items())


# -- connections


def url_of(connection: Any) -> str:
    """Return the URL of the store that *connection*, of type `volume`, is of.

    A connection that is written as a URI has its URL taken apart: host, port and schema.  Raises VolumeError where it
    names no store.
    """
    if connection.conn_type and connection.conn_type != "volume":
        raise VolumeError(
            f"the connection {connection.conn_id!r} is of type {connection.conn_type!r}: one of type 'volume' says "
            "where volumes lie (and names it in aws_conn_id, google_cloud_conn_id or wasb_conn_id)"
        )
    host, path = connection.host or "", connection.schema or ""
    if not host and not path:
        raise VolumeError(
            f"the connection {connection.conn_id!r} names no store: its host is a URL, s3://bucket/prefix"
        )
    if connection.port:
        raise VolumeError(
            f"the connection {connection.conn_id!r} has a port, which belongs to endpoint_url in its extra"
        )
    try:
        return normalize(f"{host}/{path}" if path else host)
    except VolumeError as error:
        error.add_note(f"this is the host of the connection {connection.conn_id!r}")
        raise


def store_of(connection: Any, referenced: Any = None) -> VolumeStore:
    """Return the store of *connection*; *referenced* is the connection that `reference` names, if it names one."""
    url = url_of(connection)
    extra = connections.extra_of(connection)
    variables = connections.variables_of(connection, _scheme(url), referenced)
    return VolumeStore(url, extra.get("region") or None, connection.conn_id, variables)


def reference(connection: Any) -> str | None:
    """Return the id of the connection that says who *connection* is; None if it does so itself, or leaves it open."""
    return connections.reference_of(connection, _scheme(url_of(connection)))


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def connected(conn_id: str) -> VolumeStore:
    """Return the store of the connection *conn_id*, read afresh.

    Raises NotFoundError where there is none, VolumeError where it cannot be used, a transient StorageError where the
    API does not say.
    """
    connection = _connection(conn_id)
    named = reference(connection)
    store = store_of(connection, _connection(named) if named else None)
    _met[conn_id] = store.url
    return store


def _connection(conn_id: str) -> Any:
    try:
        return compat.BaseHook.get_connection(conn_id)
    except compat.AirflowNotFoundException:
        pass
    if (why := _silence(conn_id)) is not None:
        raise StorageError(
            f"the connection {conn_id!r} could not be asked for ({why}): name a bucket, or set VOLUME_BUCKET",
            transient=True,
        )
    raise NotFoundError(f"there is no connection {conn_id!r}: make it (of type 'volume'), or name another one")


def _silence(conn_id: str) -> str | None:
    """Why nobody can know whether there is a connection *conn_id*; None if there is none.

    Airflow says "not found" in both cases, so it is asked once more, by what can tell them apart.
    """
    try:
        from airflow.sdk.execution_time import comms, task_runner

        supervisor = task_runner.SUPERVISOR_COMMS
    except (ImportError, AttributeError):  # outside a task, and before 3
        return _silence_of_database(conn_id)
    try:
        answer = supervisor.send(comms.GetConnection(conn_id=conn_id))
    except Exception as error:  # whatever the line to the supervisor raises
        return f"{type(error).__name__}: {error}"
    said = getattr(getattr(answer, "error", None), "value", None)
    return None if said in {None, _NOT_FOUND} else str(said)


def _silence_of_database(conn_id: str) -> str | None:
    if compat.IS_3:
        return None
    try:
        from airflow.secrets.metastore import MetastoreBackend

        MetastoreBackend().get_connection(conn_id)
    except Exception as error:  # whatever the database's driver raises
        return f"{type(error).__name__}: {error}"
    return None


# -- the default


def located(conn_id: str | None = None) -> VolumeStore | None:
    """Return the store of the connection *conn_id*; without one that of volumes which name none, read afresh.

    None where nothing in Airflow says it: then what holds without Airflow does, `$VOLUME_BUCKET` for example, which
    goes before all but a *conn_id*.  Raises what `connected` does.
    """
    if conn_id is not None:
        return connected(conn_id)
    if os.environ.get("VOLUME_BUCKET"):
        return None
    if default := default_connection():
        try:
            return connected(default)
        except NotFoundError:
            if default != DEFAULT_CONNECTION:  # somebody has said that it is there
                raise
    url = compat.conf.get(_SECTION, "store", fallback="")
    return VolumeStore(normalize(url)) if url else None


def default_connection() -> str:
    """Return the id of the default connection, which need not be there; "" where the settings say that none is."""
    return str(compat.conf.get(_SECTION, "conn_id", fallback=DEFAULT_CONNECTION) or "")


def used(conn_id: str | None = None) -> VolumeStore | None:
    """Return what `located` does, and have its credentials in this process's environment from now on."""
    store = located(conn_id)
    if store is not None:
        store.get_in()
    return store


def default_url() -> str | None:
    """Return the URL of the store of volumes that name none, wherever this is asked: where a DAG is parsed, too, which
    is to say once more each time.

    None where nothing in Airflow says it.  Raises what `connected` does.
    """
    if running.current() is not None:
        return default_bucket()
    store = located()
    return store.url if store is not None else None


def around(url: str) -> VolumeStore | None:
    """Return the store of the connection whose URL the store at *url* is or lies in, the longest one, read afresh.

    None where no connection that the settings name is so.  Raises what `connected` does.
    """
    found = []
    for conn_id in _named():
        try:
            found.append(connected(conn_id))
        except NotFoundError:
            if conn_id != DEFAULT_CONNECTION:
                raise
    return max((each for each in found if _lies_in(url, each.url)), key=lambda each: len(each.url), default=None)


def default_bucket() -> str | None:
    """Return the URL of the store for the running task's volumes; None where Airflow says nothing of one, or no task
    runs here.
    """
    current = running.current()
    if current is None or not _may_ask():
        return None
    ti = current.ti
    key = getattr(ti, "id", None) or (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number)
    with _lock:
        if key not in _defaults:
            _defaults[key] = used()
            while len(_defaults) > _KNOWN_MAX:
                _defaults.popitem(last=False)
        store = _defaults[key]
    return store.url if store is not None else None


def _may_ask() -> bool:
    # A task's function may run in another interpreter, which is told where volumes lie, and need not have Airflow.
    return "airflow" in sys.modules


# -- a store that is met


def reach(url: str) -> None:
    """Put the credentials for the store at *url* into the environment, where a connection has them.

    Raises VolumeError where there is such a connection and it cannot be used, a transient StorageError where the API
    does not say.
    """
    if not _may_ask() or _is_said():
        return
    with _lock:
        if time.monotonic() - _asked.get(url, float("-inf")) < _FRESH_S:
            return
        if running.current() is not None:
            meet_all()
        store = _met_around(url)
        if store is not None:
            if store.is_used():
                return  # by somebody who may be done with it soon
            store.use()
        if store is not None or running.current() is not None:
            _asked[url] = time.monotonic()


def _is_said() -> bool:
    """Whether this process is at work for one store, with its keys; in a task without any for all that it meets."""
    is_taken, store = turns.are_taken()
    return is_taken and (store is not None or running.current() is None)


def _met_around(url: str) -> VolumeStore | None:
    """Return the store of that connection, of those that were used here and are still there, which fits *url* best."""
    for conn_id in sorted(_met, key=lambda each: -len(_met[each])):
        if _lies_in(url, _met[conn_id]):
            try:
                return connected(conn_id)
            except NotFoundError:  # deleted, or one that a form has tested
                del _met[conn_id]
                if conn_id in _named():
                    raise
    return None


def meet_all() -> None:
    """Know the stores of all connections that the settings name.  Raises what `connected` does."""
    for conn_id in _named():
        if conn_id in _met:
            continue
        try:
            connected(conn_id)
        except NotFoundError:
            if conn_id != DEFAULT_CONNECTION:
                raise


def _named() -> list[str]:
    listed = compat.conf.get(_SECTION, "connections", fallback="") or ""
    names = [default_connection(), *(each.strip() for each in listed.split(","))]
    return [name for name in dict.fromkeys(names) if name]


def _lies_in(url: str, store: str) -> bool:
    return url == store or url.startswith(f"{store}/")
