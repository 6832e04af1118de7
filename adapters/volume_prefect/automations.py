"""Running a deployment for each new version of a volume.

    commit ──> the event `volume.committed` ──> an automation of the server ──> a run of the deployment, which is given
    that very version

Always true: what is made here is not at the server before its `create()` is called.
"""

from __future__ import annotations

from uuid import UUID

from prefect.automations import Automation
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture

from volume_core import ROVolume, RWVolume
from volume_core.facade.naming import place_of
from volume_core.format.names import validate_name
from volume_core.storage.opening import normalize
from volume_prefect.news import EVENT, resource_of


def run_on_new_version(
    volume: ROVolume | RWVolume | str,
    deployment_id: UUID,
    *,
    parameter: str = "data",
    store: str | None = None,
    name: str | None = None,
) -> Automation:
    """Return an automation that runs a deployment with each new version of *volume* as its *parameter*.

    *volume* is a handle, or a name in *store* (a URL; without it the default store).  The parameter gets the version's
    `vol://` URL, which one annotated `ROVolume` takes; that another version exists by then changes nothing.
    `create()` sends the automation to the server.
    """
    if isinstance(volume, str):
        called, url = validate_name(volume), normalize(place_of(store).url)
    else:
        called, url = volume.name, volume.store_url
    return Automation(
        name=name or f"New version of {called}",
        description=f"Runs a deployment with each version of the volume {called} that is committed in a run.",
        trigger=EventTrigger(
            expect={EVENT},
            match={"prefect.resource.id": resource_of(url, called)},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            RunDeployment(
                source="selected",
                deployment_id=deployment_id,
                job_variables=None,
                parameters={
                    parameter: {"__prefect_kind": "jinja", "template": "{{ event.resource['volume.url'] }}"},
                },
            )
        ],
    )
