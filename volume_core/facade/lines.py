"""A line of its own that begins where another version stands: a manifest, and nothing else.

Always true: no layer and no pack is written, whatever the size of the version; the new version's first
parent is the one it shows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from volume_core.facade.versions import Version
from volume_core.format.manifest import Action, Manifest
from volume_core.format.names import Locator
from volume_core.parts.intents import HeldIntent, iso_utc
from volume_core.parts.publishing import as_text, publish


def renamed(
    version: Version,
    name: str,
    message: str,
    labels: Mapping[str, str],
    action: Action | None,
    further_parents: tuple[str, ...] = (),
) -> Version:
    """Publish and return a version of the volume *name* that shows what *version* shows."""
    needed = (str(version.locator), *further_parents)
    store, parent = version.place.store(), version.manifest
    manifest = Manifest(
        volume=name,
        created_at=iso_utc(time.time_ns()),
        stack=parent.stack,
        parents=needed,
        message=as_text(message),
        used_bytes=parent.used_bytes,
        inode_count=parent.inode_count,
        metadata_store_type=parent.metadata_store_type,
        region=parent.region,
        produced_by=action,
        parent_produced_by=parent.produced_by,
        labels={as_text(key): as_text(value) for key, value in sorted(labels.items())},
        torn=parent.torn,
    )
    # The layers are those of *version*; the intent keeps it until the new manifest names them as well.
    with HeldIntent(store, name, needed) as intent:
        intent.begin()
        locator = publish(store, intent, needed, manifest)
    return Version(Locator.parse(locator), manifest, version.place)
