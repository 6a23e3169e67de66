"""The JSON Schema (draft 2020-12) of a capability's input, read off the serializer that checks it.

A field of a class of its own says what it takes by drf-spectacular's `extend_schema_field`: a JSON Schema, a
serializer or a PolymorphicProxySerializer. One that says nothing may take anything: the schema promises no more than is
known, and what it refuses is refused.
"""

from functools import cache
from inspect import getdoc
from typing import Any

from drf_spectacular.plumbing import get_override
from drf_spectacular.utils import PolymorphicProxySerializer
from rest_framework import serializers
from rest_framework.fields import empty

from tasks.capabilities.inputs import Input

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BOUNDS = {
    "string": {"min_length": "minLength", "max_length": "maxLength"},
    "array": {"min_length": "minItems", "max_length": "maxItems"},
    "integer": {"min_value": "minimum", "max_value": "maximum"},
    "number": {"min_value": "minimum", "max_value": "maximum"},
}
TYPES: tuple[tuple[type[serializers.Field], str], ...] = (
    (serializers.BooleanField, "boolean"),
    (serializers.IntegerField, "integer"),
    (serializers.FloatField, "number"),
    (serializers.CharField, "string"),
)


@cache
def json_schema(form: type[serializers.Serializer]) -> dict[str, Any]:
    """What the serializer takes."""
    return {"$schema": DIALECT, **_shape(form())}


def _of_field(field: serializers.Field) -> dict[str, Any]:
    """The field's shape, with what its place in a serializer adds: null, a default, a description."""
    schema = _shape(field)
    if field.allow_null:
        schema = _nullable(schema)
    if field.default is not empty and not getattr(field.default, "requires_context", False):
        schema["default"] = field.default() if callable(field.default) else field.default
    if field.help_text:
        schema["description"] = str(field.help_text)
    return schema


def _shape(field: Any) -> dict[str, Any]:
    said = get_override(field, "field", default=field)
    if isinstance(said, dict):
        return dict(said)
    if isinstance(said, type):
        said = said()
    match said:
        case PolymorphicProxySerializer():
            return {"oneOf": [_shape(form()) for form in said.serializers]}
        case serializers.Serializer():
            return _object(said)
        case serializers.ListField() | serializers.ListSerializer():
            return {"type": "array", "items": _of_field(said.child), **_bounds(said, "array")}
        case serializers.DictField() if not isinstance(said, serializers.HStoreField):
            return {"type": "object", "additionalProperties": _of_field(said.child)}
        case serializers.ChoiceField() if not isinstance(said, serializers.MultipleChoiceField):
            return {"enum": list(said.choices)}
    for kind, name in TYPES:
        if isinstance(said, kind):
            return {"type": name, **_bounds(said, name)}
    return {}


def _object(form: serializers.Serializer) -> dict[str, Any]:
    fields = {name: field for name, field in form.fields.items() if not field.read_only}
    required = [name for name, field in fields.items() if field.required]
    return {
        "type": "object",
        **({"description": getdoc(type(form))} if type(form).__doc__ else {}),
        "properties": {name: _of_field(field) for name, field in fields.items()},
        **({"required": required} if required else {}),
        **({"additionalProperties": False} if isinstance(form, Input) else {}),
    }


def _bounds(field: serializers.Field, kind: str) -> dict[str, Any]:
    found = {said: getattr(field, name, None) for name, said in BOUNDS.get(kind, {}).items()}
    if kind == "string" and not field.allow_blank:
        found["minLength"] = found["minLength"] or 1
    if kind == "array" and not getattr(field, "allow_empty", True):
        found["minItems"] = found["minItems"] or 1
    return {name: bound for name, bound in found.items() if bound is not None}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], *({None} - set(schema["enum"]))]}
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema
