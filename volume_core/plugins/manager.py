"""Who implements the hooks, and how each is called: typed, one method per hook.

Why not pluggy's own loading and calling: one entry point that cannot be imported would take the
whole process down, and an exception from a hook would not say whose it is.

Always true:

  1. A plugin is registered whole or not at all; a hook it misspells, or an argument that the hook
     does not have, is an error that names plugin and hook.
  2. Entry points are loaded one by one, once per process, when the first hook is called.  One that
     fails is named in a warning and left out.
  3. Wrappers are refused: a question has one answer, and news decide nothing.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from volume_core.errors import StorageError, VolumeError
from volume_core.format.manifest import Action
from volume_core.plugins import builtin, hookspecs
from volume_core.plugins.hookspecs import PROJECT, MountDriver
from volume_core.storage.protocol import Store

if TYPE_CHECKING:
    from volume_core.parts.progress import Progress

log = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "volume_core"


class Plugins:
    """The registered plugins.  Every method may be called from several threads at once."""

    def __init__(self) -> None:
        self._manager = _new_manager()
        self.register(builtin, "built-in")

    def register(self, plugin: object, name: str | None = None) -> str:
        """Add *plugin*, a module or object with functions marked `hookimpl`; return its name.

        Raises VolumeError naming the plugin if a hook is misspelt or takes an argument that the hook
        does not have, and if the plugin or its name is registered already.
        """
        shown = name or getattr(plugin, "__name__", None) or type(plugin).__name__
        try:
            _check(plugin, shown)
            return self._manager.register(plugin, name) or shown
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = "; ".join(str(error).splitlines())
            raise VolumeError(f"plugin {shown} cannot be registered: {reason}") from error

    def unregister(self, plugin: object) -> None:
        """Take *plugin* out again; its hooks are called no more."""
        self._manager.unregister(plugin)

    def names(self) -> list[str]:
        """Return the names of the registered plugins, in the order they came."""
        return [name for name, plugin in self._manager.list_name_plugin() if plugin is not None]

    def load_entry_points(self, group: str = ENTRY_POINT_GROUP) -> None:
        """Register every installed entry point of *group*; a broken one is a warning that names it."""
        for entry_point in importlib.metadata.entry_points(group=group):
            if self._manager.has_plugin(entry_point.name):
                continue
            try:
                self.register(entry_point.load(), entry_point.name)
            except Exception as error:  # what an import runs may raise anything
                package = entry_point.dist.name if entry_point.dist else "an unknown package"
                log.warning(
                    "plugin %s of %s is left out: %s (%s: %s)",
                    entry_point.name, package, entry_point.value, type(error).__name__, error,
                )  # fmt: skip

    def _ask(self, hook: str, /, **facts: object) -> Iterator[Any]:
        """Yield the answers that are not None, newest plugin first."""
        for impl in _implementations(getattr(self._manager.hook, hook)):
            answer = _call(hook, impl, facts)
            if answer is not None:
                yield answer

    def _tell(self, hook: str, /, **facts: object) -> None:
        tell(getattr(self._manager.hook, hook), **facts)

    def current_task(self) -> Action | None:
        """Ask volume_current_task."""
        return next(self._ask("volume_current_task"), None)

    def default_bucket(self) -> str:
        """Ask volume_default_bucket; the built-in plugin always has an answer."""
        bucket: str = next(self._ask("volume_default_bucket"))
        return bucket

    def open_store(self, url: str, options: Mapping[str, str]) -> Store:
        """Ask volume_open_store; StorageError says so if no plugin knows the scheme of *url*."""
        store: Store | None = next(self._ask("volume_open_store", url=url, options=options), None)
        if store is None:
            raise StorageError(
                f"{url}: nothing installed opens such a store; is the scheme spelt right, "
                "or the plugin that adds it not installed?"
            )
        return store

    def reference(self, url: str, *, is_directory: bool) -> Any:
        """Ask volume_reference; None where nobody answers."""
        return next(self._ask("volume_reference", url=url, is_directory=is_directory), None)

    def mount_drivers(self) -> dict[str, MountDriver]:
        """Ask volume_mount_driver; return the drivers by name."""
        drivers: dict[str, MountDriver] = {}
        for driver in self._ask("volume_mount_driver"):
            if drivers.setdefault(driver.name, driver) is not driver:
                raise VolumeError(f"two plugins bring a mount driver called {driver.name!r}: uninstall one")
        return drivers

    def committing(self, progress: Progress, action: Action | None) -> None:
        """Tell volume_committing."""
        self._tell("volume_committing", progress=progress, action=action)

    def committed(self, version: object, action: Action | None) -> None:
        """Tell volume_committed."""
        self._tell("volume_committed", version=version, action=action)

    def mounted(
        self, *, name: str, locator: str | None, path: Path, driver: str, writable: bool, action: Action | None
    ) -> None:
        """Tell volume_mounted."""
        facts = {"name": name, "locator": locator, "path": path, "driver": driver, "writable": writable}
        self._tell("volume_mounted", **facts, action=action)

    def pod(self, spec: dict[str, Any]) -> None:
        """Let every plugin change *spec* (volume_pod)."""
        for _ in self._ask("volume_pod", spec=spec):
            pass


def tell(hook: pluggy.HookCaller, **facts: object) -> None:
    """Tell every plugin *facts*.  One that fails is logged by name and stops nobody."""
    for impl in _implementations(hook):
        try:
            impl.function(*(facts[name] for name in impl.argnames))
        except Exception:
            log.exception("adapter %s failed in %s", impl.plugin_name, hook.name)


def _implementations(hook: pluggy.HookCaller) -> Iterator[pluggy.HookImpl]:
    """In the order of calls: the last registered first, those marked `trylast` at the end."""
    return reversed(hook.get_hookimpls())


def _call(hook: str, impl: pluggy.HookImpl, facts: Mapping[str, object]) -> object:
    try:
        return impl.function(*(facts[name] for name in impl.argnames))
    except VolumeError as error:
        error.add_note(f"raised by adapter {impl.plugin_name} in {hook}")
        raise
    except Exception as error:
        raise VolumeError(f"adapter {impl.plugin_name} failed in {hook}: {type(error).__name__}: {error}") from error


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _check(plugin: object, name: str) -> None:
    """Register *plugin* with a manager of its own first: pluggy does not undo what it had begun."""
    trial = _new_manager()
    trial.register(plugin, name)
    trial.check_pending()
    callers = trial.get_hookcallers(plugin) or ()
    if not callers:
        raise ValueError("it implements no hook; are its functions marked with volume_core.hookimpl?")
    for caller in callers:
        if any(impl.wrapper or impl.hookwrapper for impl in caller.get_hookimpls()):
            raise ValueError(f"{caller.name} cannot be wrapped")


_lock = threading.RLock()  # an entry point may call a hook while it is loaded
_plugins: Plugins | None = None


def _renew_lock() -> None:
    # The thread that loaded plugins while another one forked does not exist in the child.
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


def plugins() -> Plugins:
    """Return this process's plugins: the built-in ones, those installed, and those registered since."""
    global _plugins
    with _lock:
        if _plugins is None:
            _plugins = Plugins()
            _plugins.load_entry_points()
        return _plugins


def register(plugin: object, name: str | None = None) -> Callable[[], None]:
    """Add *plugin* to this process's plugins; return what takes it out again."""
    found = plugins()
    found.register(plugin, name)
    return functools.partial(found.unregister, plugin)
