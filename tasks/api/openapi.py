"""The OpenAPI document: the words of `operations`, the shapes of the serializers, the codes of `errors`."""

from collections.abc import Iterable
from typing import Any

from drf_spectacular.drainage import warn
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ComponentRegistry
from rest_framework import serializers

from tasks.api import examples, headers
from tasks.api.authentication import SAFE
from tasks.api.codes import CODES
from tasks.api.endpoint import STREAM
from tasks.api.operations import OPERATIONS, PATHS, SCHEMAS, TAGS, WEBHOOKS, Answer, Operation
from tasks.api.schema import Anything
from tasks.capabilities.inputs import Input

Shown = dict[str, Any]

EVERYWHERE = ("invalid_header", "forbidden", "internal_error", "unavailable")
WITH_A_KEY = (
    "unauthorized",
    "invalid_api_key",
    "account_disabled",
    "insufficient_scope",
    "invalid_request",
    "rate_limited",
    "not_acceptable",
)
WITH_A_BODY = ("invalid_json", "payload_too_large", "unsupported_media_type", "invalid_request")


NAMES = sorted(CODES)


class ApiErrorSerializer(serializers.Serializer):
    """What went wrong. `param` is a JSON Pointer (RFC 6901) to the value that is to blame."""

    code = serializers.ChoiceField(choices=NAMES)
    message = serializers.CharField()
    retryable = serializers.BooleanField()
    request_id = serializers.CharField(allow_null=True)
    param = serializers.CharField(allow_null=True)
    details = Anything()


class ErrorResponseSerializer(serializers.Serializer):
    """Every error, whatever its status."""

    error = ApiErrorSerializer()


CLOSED = (Input, ApiErrorSerializer, ErrorResponseSerializer)


class Schema(AutoSchema):
    """Describes a view by its entry in OPERATIONS; a view without one makes a warning, which fails the tests."""

    def get_operation(
        self, path: str, path_regex: str, path_prefix: str, method: str, registry: ComponentRegistry
    ) -> Shown | None:
        self.registry, self.path, self.method = registry, path, method.upper()
        found = OPERATIONS.get((self.method, path))
        if found is None:
            warn(f"{self.method} {path} is not described in OPERATIONS")
            return None
        return {
            "operationId": found.id,
            "tags": [found.tag],
            "summary": found.summary,
            "description": found.description,
            "parameters": self._all_parameters(found),
            **self._body(found),
            "security": [] if found.public else [{"bearer": [scope]} for scope in self._scopes()],
            "responses": self._answers(found) | self._refusals(found),
        }

    def _scopes(self) -> Iterable[str]:
        """The scopes of which one is enough, as the view demands them."""
        return self.view.reading if self.method in SAFE else self.view.writing  # type: ignore[no-any-return]

    def _all_parameters(self, operation: Operation) -> list[Shown]:
        in_path = [name for name in PATHS if f"{{{name}}}" in self.path]
        return [
            *({"$ref": f"#/components/parameters/{_pascal(name)}"} for name in in_path),
            *operation.query,
            *({"$ref": f"#/components/parameters/{name}"} for name in (*operation.parameters, "RequestId")),
        ]

    def _body(self, operation: Operation) -> Shown:
        if operation.body is None:
            return {}
        media = {"schema": self.resolve_serializer(operation.body, "request").ref, **_examples(operation.example)}
        needed = any(field.required for field in operation.body().fields.values())
        return {"requestBody": {"required": needed, "content": {"application/json": media}}}

    def _answers(self, operation: Operation) -> Shown:
        return {str(status): self._answer(answer) for status, answer in operation.answers.items()}

    def _answer(self, answer: Answer) -> Shown:
        shown: Shown = {"description": answer.description, "headers": _headers((*answer.headers, *self._rate()))}
        if answer.body is not None:
            media = {"schema": self._shape(answer.body), **_examples(answer.example)}
            shown["content"] = dict.fromkeys(answer.media_types, media)
            if STREAM in answer.media_types:
                shown["content"][STREAM] = {"schema": {"type": "string"}}
        return shown

    def _rate(self) -> tuple[str, ...]:
        return () if OPERATIONS[self.method, self.path].public else headers.RATE

    def _shape(self, body: Any) -> Shown:
        return body if isinstance(body, dict) else self.resolve_serializer(body, "response").ref

    def _refusals(self, operation: Operation) -> Shown:
        schema = self.resolve_serializer(ErrorResponseSerializer, "response").ref
        by_status: dict[int, list[str]] = {}
        for code in _codes(operation, self.method):
            by_status.setdefault(CODES[code].status, []).append(code)
        return {str(status): _refusal(status, codes, schema) for status, codes in sorted(by_status.items())}

    def get_serializer_name(self, serializer: Any, direction: str) -> str:
        """A request is called one once."""
        return str(super().get_serializer_name(serializer, direction)).removesuffix("Request")

    def _map_basic_serializer(self, serializer: Any, direction: str) -> Shown:
        shown: Shown = super()._map_basic_serializer(serializer, direction)
        if isinstance(serializer, CLOSED):
            shown["additionalProperties"] = False
        if direction == "request":
            shown["properties"] = {name: _told_in_words(field) for name, field in shown["properties"].items()}
        return shown


def _told_in_words(field: Shown) -> Shown:
    """The field, its default in the description: generators take a field with a default for one that must be sent."""
    if "default" not in field:
        return field
    plain = {name: value for name, value in field.items() if name != "default"}
    return plain | {"description": f"{field.get('description', '')} Default: {field['default']}.".strip()}


def _codes(operation: Operation, method: str) -> Iterable[str]:
    """Every code that the operation can answer with, each once."""
    keyed = () if operation.public else WITH_A_KEY
    sent = () if method == "GET" else WITH_A_BODY
    return dict.fromkeys((*EVERYWHERE, *keyed, *sent, *operation.codes))


def _refusal(status: int, codes: list[str], schema: Shown) -> Shown:
    named = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}.get(status, ())
    shown = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    return {
        "description": ", ".join(f"`{code}`" for code in codes) + ".",
        "headers": _headers(named),
        "content": {"application/json": {"schema": schema, "examples": shown}},
        "x-error-codes": codes,
    }


def _headers(names: Iterable[str]) -> Shown:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*names, "X-Request-Id")}


def _examples(name: str | None) -> Shown:
    return {"examples": {name: {"$ref": f"#/components/examples/{name}"}}} if name else {}


def _pascal(name: str) -> str:
    return name.title().replace("_", "")


def complete(result: Shown, generator: Any, **_: Any) -> Shown:
    """The hook that adds what no single operation says: tags, security, what they share, webhooks."""
    result["tags"] = [{"name": name, "description": words} for name, words in TAGS.items()]
    components = result["components"]
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `cf_live_...` or `cf_test_...`."}
    }
    components["parameters"] = _parameters()
    components["headers"] = headers.ANSWER
    components["examples"] = _all_examples()
    result["webhooks"] = {type_: _webhook(type_, words) for type_, (words, _) in WEBHOOKS.items()}
    components["schemas"] = _with_plain_null(components["schemas"])
    components["schemas"] |= SCHEMAS | {_component(type_): _message(type_, *told) for type_, told in WEBHOOKS.items()}
    return result


def _with_plain_null(shown: Any) -> Any:
    """The schemas, with the type `null` in place of an enumeration of nothing else."""
    if isinstance(shown, list):
        return [_with_plain_null(below) for below in shown]
    if not isinstance(shown, dict):
        return shown
    if shown == {"$ref": "#/components/schemas/NullEnum"}:
        return {"type": "null"}
    return {name: _with_plain_null(below) for name, below in shown.items() if name != "NullEnum"}


def _parameters() -> Shown:
    in_path = {
        _pascal(name): {
            "name": name,
            "in": "path",
            "required": True,
            "description": words,
            "schema": {"type": "string"},
        }
        for name, words in PATHS.items()
    }
    return in_path | {name: {"in": "header", **shown} for name, shown in headers.REQUEST.items()}


def _all_examples() -> Shown:
    refusals = {
        name: {"summary": code.remedy, "value": examples.of_code(name, code.meaning, retryable=code.retryable)}
        for name, code in CODES.items()
    }
    return refusals | {name: {"value": value} for name, value in examples.read().items()}


def _webhook(type_: str, words: str) -> Shown:
    named = [
        {"name": name, "in": "header", "required": True, "description": about, "schema": {"type": "string"}}
        for name, about in headers.WEBHOOK.items()
    ]
    return {
        "post": {
            "operationId": _component(type_)[0].lower() + _component(type_)[1:],
            "summary": words,
            "description": "Verify the signature over the bytes as they came. Deliveries may overtake one another.",
            "tags": ["Callbacks"],
            "security": [],
            "parameters": named,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{_component(type_)}"}}},
            },
            "responses": {
                "2XX": {"description": "Taken. Anything else, a redirect too, is tried again."},
                "410": {"description": "Ends the tries of this callback."},
            },
        }
    }


def _message(type_: str, words: str, data: str) -> Shown:
    return {
        "type": "object",
        "description": words,
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "const": type_},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": {"$ref": f"#/components/schemas/{data}"},
        },
    }


def _component(type_: str) -> str:
    return "".join(word.title() for word in type_.replace("_", ".").split(".")) + "Message"
