"""What is offered and what it costs: the catalogue, and the quote that a creation would get."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rest_framework import serializers

from billing.models import Account, Price, Transfer
from billing.pricing import METERS
from tasks import capabilities
from tasks.capabilities.image.inputs import ImageTransformInput
from tasks.capabilities.inputs import Input, Integer, Text
from tasks.capabilities.json_schema import json_schema
from tasks.capabilities.test_echo import EchoInput
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

PRICES = (("task", "0.5"), ("characters", "2.5", 1000), ("input_tokens", "0"))


@pytest.mark.django_db(transaction=True)
class TestCatalogue:
    def test_a_deployment_shows_what_a_client_needs_and_no_secret(self):
        to = builders.deployment(
            "writer", prices=PRICES, settings={"base_url": "http://10.9.8.7/", "api_key_env": "SECRET_NAME"}, timeout=60
        )
        consumer = Consumer()

        shown = consumer.get("/v1/deployments/writer")

        meters = {meter["meter"]: meter["unit_price_credits"] for meter in shown.json()["meters"]}
        assert {name: value for name, value in shown.json().items() if name not in ("meters", "input_schema")} == {
            "object": "deployment",
            "name": "writer",
            "capability": "test.work",
            "resolved_model": to.resolved_model,
            "is_default": False,
            "bills_partial_output": False,
            "timeout": 60,
            "max_retries": 2,
            "ttl": 86_400,
            "max_lifetime": 604_800,
        }
        assert meters == dict.fromkeys(METERS, "0") | {"task": "0.5", "characters": "2.5"}
        assert next(meter["unit_size"] for meter in shown.json()["meters"] if meter["meter"] == "characters") == 1000
        assert b"10.9.8.7" not in shown.content
        assert b"SECRET_NAME" not in shown.content

    def test_the_list_has_what_takes_tasks_and_nothing_else(self):
        builders.deployment("asleep", is_active=False)
        builders.deployment("gone", capability="no.longer.installed")
        builders.deployment("awake")
        consumer = Consumer()

        answer = consumer.get("/v1/deployments")

        awake = consumer.get("/v1/deployments/awake").json()
        assert [shown for shown in answer.json()["data"] if shown["name"] in ("asleep", "gone", "awake")] == [awake]
        assert consumer.get("/v1/deployments?capability=no.longer.installed").json()["data"] == []
        for name in ("asleep", "gone", "nobody", "%00", "x" * 300):
            answer = consumer.get(f"/v1/deployments/{name}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")

    def test_a_price_shows_from_its_moment_on(self):
        to = builders.deployment("dear", prices=(("task", "1"),))
        price = {"rate_card": to.rate_card, "meter": "task", "unit": "task", "unit_size": 1}
        Price.objects.create(**price, credits=9, effective_from=timezone.now() + timedelta(hours=1))
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.001)")

        before = Consumer().get("/v1/deployments/dear").json()["meters"][0]
        Price.objects.create(**price, credits=2)
        after = Consumer().get("/v1/deployments/dear").json()["meters"][0]

        assert (before["unit_price_credits"], after["unit_price_credits"]) == ("1", "2")


@pytest.mark.django_db(transaction=True)
class TestQuote:
    def test_a_quote_is_what_the_task_will_hold_and_its_lines_add_up(self):
        to = builders.deployment(prices=PRICES, bills_partial_output=True)
        consumer, body = Consumer(), {"model": to.name, "input": {"usage": {"characters": 700, "input_tokens": 3}}}

        quoted = consumer.post("/v1/quotes", body)

        made = consumer.post("/v1/tasks", body).json()
        shown = quoted.json()
        assert quoted.status_code == 200
        assert shown["ceiling_credits"] == made["billing"]["quoted_credits"] == "2.2500"
        assert shown["ceiling_credits_usd_reference"] == "0.0022500"
        assert (shown["capability"], shown["model"], shown["resolved_model"]) == ("test.work", to.name, f"{to.name}-1")
        assert (shown["bound"], shown["bills_partial_output"]) == ({"characters": "700", "input_tokens": "3"}, True)
        assert [(line["meter"], line["quantity"], line["listed_amount_credits"]) for line in shown["lines"]] == [
            ("task", "1", "0.5000"),
            ("input_tokens", "3", "0.0000"),
            ("characters", "700", "1.7500"),
        ]
        assert (shown["lines"][2]["unit_price_credits"], shown["lines"][2]["unit_size"]) == ("2.5", 1000)

    def test_a_quote_writes_nothing_and_asks_for_no_balance_and_no_room(self):
        poor = Consumer(builders.account("0", pending_limit=0), scopes=["tasks:read"])
        to = builders.deployment(max_pending=0)

        answer = poor.post("/v1/quotes", {"model": to.name, "input": {}}, Idempotency_Key="k")

        assert (answer.status_code, answer.json()["ceiling_credits"]) == (200, "1.0000")
        assert not Task.objects.exists()
        assert not Transfer.objects.exists()
        assert Account.objects.get(pk=poor.account.pk).account_seq == 0

    @pytest.mark.parametrize(
        ("fields", "code", "param"),
        [
            ({"model": "nobody"}, "unsupported_model", "/model"),
            ({"input": {"seconds": "soon"}}, "invalid_request", "/input/seconds"),
            ({"timeout": 61}, "invalid_request", "/timeout"),
            ({"deadline": "2001-01-01T00:00:00Z"}, "invalid_request", "/deadline"),
            ({"huh": 1}, "invalid_request", "/huh"),
        ],
    )
    def test_what_a_creation_refuses_a_quote_refuses_alike(self, fields, code, param):
        to = builders.deployment(timeout=60)
        consumer, body = Consumer(), {"model": to.name, "input": {}, **fields}

        errors = [consumer.post(path, body).json()["error"] for path in ("/v1/quotes", "/v1/tasks")]

        assert [(error["code"], error["param"]) for error in errors] == [(code, param)] * 2


class Inner(Input):
    """One of two."""

    count = Integer(min_value=1, max_value=3)


class Odd(Input):
    """Every kind of field."""

    name = Text(min_length=2, max_length=4, help_text="A name.")
    blank = Text(allow_blank=True, default="")
    kind = serializers.ChoiceField(["a", "b"], allow_null=True, default=None)
    flag = serializers.BooleanField(default=False)
    some = serializers.ListField(child=Integer(), min_length=1, max_length=2, required=False)
    inner = Inner(required=False, allow_null=True)
    many = Inner(many=True, required=False)
    words = serializers.DictField(child=Text(), required=False)
    anything = serializers.JSONField(required=False, allow_null=True)


class TestSchema:
    @pytest.mark.parametrize("name", sorted(capabilities.REGISTRY))
    def test_every_capabilitys_schema_is_one(self, name):
        schema = json_schema(capabilities.get(name).input)

        Draft202012Validator.check_schema(schema)
        assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
        assert schema["type"] == "object"

    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            ("name", ["ab", "abcd"], ["a", "abcde", 7, None]),
            ("blank", ["", "x"], [None]),
            ("kind", ["a", None], ["c", 1]),
            ("flag", [True], ["maybe", None]),
            ("some", [[1], [1, 2]], [[], [1, 2, 3], ["x"]]),
            ("inner", [{"count": 3}, None], [{"count": 4}, {}, {"count": 1, "huh": 1}]),
            ("many", [[], [{"count": 1}]], [{}, [{"count": 0}]]),
            ("words", [{}, {"a": "b"}], [{"a": 1}, []]),
            ("anything", [None, 1, {"a": []}], []),
            ("huh", [], [1]),
        ],
    )
    def test_the_schema_takes_what_the_serializer_takes(self, field, good, bad):
        validator = Draft202012Validator(json_schema(Odd))
        bodies = [{"name": "name", field: value} for value in (*good, *bad)]

        by_schema = [validator.is_valid(body) for body in bodies]

        assert by_schema == [Odd(data=body).is_valid() for body in bodies]
        assert by_schema == [True] * len(good) + [False] * len(bad)

    @pytest.mark.parametrize(
        ("operation", "taken"),
        [
            ({"op": "resize", "width": 5}, True),
            ({"op": "crop", "width": 5, "height": 5}, True),
            ({"op": "rotate", "degrees": 270}, True),
            ({"op": "flip", "direction": "vertical"}, True),
            ({"op": "grayscale"}, True),
            ({"op": "rotate", "degrees": 45}, False),
            ({"op": "crop", "width": 5}, False),
            ({"op": "grayscale", "width": 5}, False),
            ({"op": "sharpen"}, False),
            ({}, False),
        ],
    )
    def test_each_operation_on_an_image_has_a_shape_of_its_own(self, operation, taken):
        body = {"image_url": "https://example.com/a.png", "operations": [operation]}

        by_schema = Draft202012Validator(json_schema(ImageTransformInput)).is_valid(body)

        assert by_schema == ImageTransformInput(data=body).is_valid() == taken

    def test_descriptions_and_defaults_are_told(self):
        schema = json_schema(Odd)

        assert schema["description"] == "Every kind of field."
        assert schema["properties"]["name"]["description"] == "A name."
        assert schema["properties"]["kind"] == {"enum": ["a", "b", None], "default": None}
        assert schema["required"] == ["name"]

    @settings(max_examples=150, deadline=None)
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "seconds": st.floats(-1, 700) | st.integers(-1, 700) | st.text(max_size=2),
                "steps": st.integers(-5, 1005) | st.none(),
                "usage": st.dictionaries(
                    st.sampled_from([*METERS, "huh"]),
                    st.decimals(0, 10**13, places=3).map(str) | st.integers(-1, 10**13) | st.none(),
                    max_size=2,
                ),
                "fail": st.sampled_from(["timeout", "huh", None]),
            },
        )
    )
    def test_what_the_serializer_takes_its_schema_takes(self, body):
        if EchoInput(data=body).is_valid():
            Draft202012Validator(json_schema(EchoInput)).validate(body)
