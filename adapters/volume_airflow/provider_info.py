"""What Airflow is told of this package: the entry point `apache_airflow_provider`.

Always true: it imports nothing; every name in it leads to something, and Airflow's schema of providers is kept
(tests/in_airflow/test_airflow_provider.py).
"""

from __future__ import annotations

from typing import Any

_INTEGRATION = "Volumes"
_VERSION = "0.1.0"

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["schema", "port"],
    "relabeling": {"host": "Store URL", "login": "Access key, or account", "password": "Secret key"},
    "placeholders": {"host": "s3://bucket/prefix, gs://, az://, abfs:// or a directory"},
}


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's schema of providers asks for."""
    return {
        "package-name": "volume-core",
        "name": _INTEGRATION,
        "description": "Versioned, forkable, mountable file systems as values of tasks.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["service"]}],
        "connection-types": [
            {
                "connection-type": "volume",
                "hook-name": "Volume store",
                "hook-class-name": "volume_airflow.hooks.volume.VolumeHook",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": conn_fields(),
            }
        ],
        "hooks": _modules("volume_airflow.hooks.volume"),
        "operators": _modules("volume_airflow.operators.volume", "volume_airflow.operators.pod"),
        "sensors": _modules("volume_airflow.sensors.volume"),
        "triggers": _modules("volume_airflow.triggers.volume"),
        # The schema calls it `path`; what Airflow reads is `class-name`.
        "task-decorators": [{"name": "volume", "class-name": "volume_airflow.decorators.volume.volume_task"}],
        "filesystems": ["volume_airflow.fs.vol"],
        "asset-uris": [
            {
                "schemes": ["vol"],
                "handler": "volume_airflow.assets.vol.sanitize_uri",
                "factory": "volume_airflow.assets.vol.create_asset",
                "to_openlineage_converter": "volume_airflow.assets.vol.to_openlineage",
            }
        ],
        "extra-links": ["volume_airflow.links.volume.VolumeLink"],
        "config": {"volume": {"description": "Volumes as values of tasks.", "options": _options()}},
    }


def conn_fields() -> dict[str, dict[str, Any]]:
    """Return the fields that a connection's form has in its extra, by name."""
    return {
        "region": _field("Region", "of an S3 bucket, as in eu-west-1"),
        "endpoint_url": _field("Endpoint", "of an S3 that is not Amazon's, as in http://minio:9000"),
        "session_token": _field("Session token", "of temporary S3 keys", secret=True),
        "aws_conn_id": _field("AWS connection", "the connection whose keys count, in the place of those above"),
        "google_cloud_conn_id": _field("Google Cloud connection", "the connection whose service account counts"),
        "wasb_conn_id": _field("Azure Blob connection", "the connection whose account and keys count"),
        "cache_size": _field("Cache size", "of remote contents on each machine: bytes, or with a unit, as in 20G"),
    }


def _field(label: str, description: str, *, secret: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": ["string", "null"]}
    if secret:
        schema["format"] = "password"
    return {"label": label, "description": description, "schema": schema}


def _modules(*names: str) -> list[dict[str, Any]]:
    return [{"integration-name": _INTEGRATION, "python-modules": list(names)}]


def _options() -> dict[str, dict[str, Any]]:
    return {
        "conn_id": _option(
            "The connection, of type volume, that says where volumes lie which name no bucket. It need not be there "
            "if it is called volume_default; empty: none is asked for.",
            default="volume_default",
        ),
        "store": _option(
            "The URL of the store of volumes that name no bucket, where there is no such connection: "
            "s3://bucket/prefix, gs://, az://, abfs:// or a directory that all workers have.",
            example="s3://team/volumes",
        ),
        "connections": _option(
            "Further connections of type volume, separated by commas. A task that is given a version gets into its "
            "store by the one of them, or the default one, whose URL the store is or lies in.",
            example="volume_archive,volume_partner",
        ),
        "on_failure": _option(
            "What becomes of what a failed task has written and not committed: keep or drop.", default="keep"
        ),
        "retry": _option(
            "Whether the next try goes on from what the failed one left (resume), or has a fork of what the task was "
            "given (fresh).",
            default="resume",
        ),
        "on_terminate": _option(
            "What SIGTERM does to volumes that are mounted: commit or keep; none: nothing is committed.",
            default="none",
        ),
        "assets": _option(
            "Whether each version that a task commits is an event of its volume's asset.", "boolean", default="True"
        ),
        "pod_override": _option(
            "Whether tasks that use volumes get pods that can mount, where an executor makes pods.",
            "boolean",
            default="True",
        ),
        "pod_privileged": _option(
            "No device plugin: such pods are privileged, and have the node's /dev/fuse.", "boolean", default="False"
        ),
        "pod_device": _option("The resource that a device plugin calls /dev/fuse.", example="smarter-devices/fuse"),
        "pod_cache_size": _option(
            "How large the disk for uncommitted work and the cache may become; none: as large as the node's.",
            example="50Gi",
        ),
        "pod_state_dir": _option("Where that disk is mounted in a pod.", example="/var/lib/volumes"),
        "pod_run_as_user": _option("The user of such pods; image: that of the image.", example="50000"),
        "pod_apparmor_unconfined": _option(
            "Whether such pods run without an AppArmor profile.", "boolean", default="False"
        ),
    }


def _option(
    description: str, kind: str = "string", *, default: str | None = None, example: str | None = None
) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": _VERSION,
        "type": kind,
        "example": example,
        "default": default,
    }
