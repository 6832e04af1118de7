"""What a volume looks like to whoever fills a form: the JSON schema of what may stand for one.

Why: engines check a run's parameters against the schema of the task that takes them, before any of our code sees them.
So it has to say all that receiving.py takes, not only what a record is.

Always true: for what is written (`mode="serialization"`) the schema is the record's alone, since that is all a volume
ever becomes.
"""

from __future__ import annotations

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from volume_core.facade.handles import HandledRecord

_TEXT = {
    "type": "string",
    "title": "Name or URL",
    "description": "NAME or NAME:REF in the default store, a vol:// URL, or a version's locator",
    "minLength": 1,
    "examples": ["my-dataset", "my-dataset:v1", "vol://s3+bucket/prefix/-/my-dataset~v1"],
}
_LOCATOR = {
    "type": "object",
    "title": "Locator",
    "properties": {"locator": _TEXT},
    "required": ["locator"],
}


class FillsForms(HandledRecord):
    """What the classes of volumes say of themselves in a JSON schema."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Text, a record, or a locator alone; of a record that is written, the record."""
        schema = handler(core_schema)
        if handler.mode == "serialization":
            return schema
        record = handler.resolve_ref_schema(schema)
        described = {key: record[key] for key in ("title", "description") if key in record}
        fields = dict(record)
        record.clear()
        record.update(described | {"anyOf": [_TEXT, {**fields, "title": "Record"}, _LOCATOR]})
        return schema
