"""The JSON schema of a volume: what a form or an engine's server lets through is what receiving takes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from volume_core import NotFoundError, ROVolume, RWVolume, Volume
from volume_core.facade.addresses import parse, strip


class Parameters(BaseModel):
    data: ROVolume
    more: list[RWVolume] | None = None


def kinds(schema: dict[str, Any]) -> list[str]:
    return [each["type"] for each in schema["anyOf"]]


@pytest.mark.parametrize("cls", [Volume, ROVolume, RWVolume])
def test_text_a_record_and_a_locator_alone_are_accepted(cls):
    schema = cls.model_json_schema()

    assert ["string", "object", "object"] == kinds(schema)
    assert cls.__name__ == schema["title"]
    assert [None, ["name", "bucket", "storage"], ["locator"]] == [each.get("required") for each in schema["anyOf"]]


def test_within_a_models_schema_too():
    definitions = Parameters.model_json_schema()["$defs"]

    assert ["string", "object", "object"] == kinds(definitions["ROVolume"]) == kinds(definitions["RWVolume"])


def test_what_is_written_is_a_record():
    schema = ROVolume.model_json_schema(mode="serialization")

    assert "object" == schema["type"]
    assert "anyOf" not in schema


def test_each_example_is_text_that_receiving_understands():
    *names, url = ROVolume.model_json_schema()["anyOf"][0]["examples"]

    for name in names:
        with pytest.raises(NotFoundError):  # not InvalidNameError
            ROVolume.model_validate(name)
    assert ("s3://bucket/prefix", "my-dataset", "v1") == parse(strip(url))[1:4]
