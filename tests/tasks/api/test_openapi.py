"""The OpenAPI document: current, valid, and true of the examples that it shows."""

import io
import json

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.core.management import call_command

from tasks.api.codes import CODES
from tasks.api.operations import OPERATIONS
from tasks.statuses import ErrorCode
from tests.tasks.api.client import Consumer

COMMITTED = settings.BASE_DIR / "openapi.yaml"


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load(COMMITTED.read_text())


def operations(document):
    return {(method.upper(), path): shown for path, at in document["paths"].items() for method, shown in at.items()}


def resolve(document, shown):
    while "$ref" in shown:
        found = document
        for name in shown["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        shown = found
    return shown


def test_the_committed_document_is_the_one_of_this_code():
    made = io.StringIO()

    call_command("spectacular", "--validate", "--fail-on-warn", stdout=made)

    assert made.getvalue() == COMMITTED.read_text(), "uv run manage.py spectacular --file openapi.yaml"


def test_every_operation_is_described_and_every_description_has_an_operation(document):
    assert operations(document).keys() == OPERATIONS.keys()
    assert len({operation.id for operation in OPERATIONS.values()}) == len(OPERATIONS)


def test_every_code_of_an_operation_stands_under_its_status(document):
    for shown in operations(document).values():
        for status, answer in shown["responses"].items():
            assert {CODES[code].status for code in answer.get("x-error-codes", [])} <= {int(status)}


def test_no_reference_leads_nowhere(document):
    named = [line.split("'")[1] for line in COMMITTED.read_text().splitlines() if "$ref: '" in line]

    assert len(named) > 100
    for reference in set(named):
        resolve(document, {"$ref": reference})


def media(document):
    for where, shown in operations(document).items():
        contents = [answer.get("content", {}) for answer in shown["responses"].values()]
        for content in [shown.get("requestBody", {}).get("content", {}), *contents]:
            for kind in content.values():
                yield where, kind


def test_every_example_is_valid(document):
    shown = 0
    for where, kind in media(document):
        for name, example in kind.get("examples", {}).items():
            schema = {**closed(kind["schema"]), "components": closed(document["components"])}
            found = jsonschema.Draft202012Validator(schema).iter_errors(resolve(document, example)["value"])
            assert [error.message for error in found] == [], (where, name)
            shown += 1
    assert shown > 100


def closed(shown):
    """The schemas with nothing allowed beside what they name."""
    if isinstance(shown, list):
        return [closed(below) for below in shown]
    if not isinstance(shown, dict):
        return shown
    made = {name: closed(below) for name, below in shown.items()}
    return made | {"additionalProperties": False} if set(made) >= {"type", "properties", "required"} else made


def test_a_wrong_example_would_be_found(document):
    schema = {"$ref": "#/components/schemas/TaskList", "components": closed(document["components"])}
    page = document["components"]["examples"]["task_list"]["value"]
    page["data"][0] |= {"huh": 1, "callback": {}}

    found = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(page)]

    assert len(found) == 2


@pytest.mark.django_db
def test_the_document_is_served_to_everybody_with_the_services_own_address():
    consumer = Consumer()

    answer = consumer.http.get("/v1/openapi.json", headers={"Accept": "text/html"})
    again = consumer.http.get("/v1/openapi.json", headers={"If-None-Match": answer["ETag"]})
    posted = consumer.http.post("/v1/openapi.json")

    document = json.loads(answer.content)
    assert (answer.status_code, again.status_code, again.content) == (200, 304, b"")
    assert answer["Cache-Control"] == "public, max-age=300"
    assert document["servers"] == [{"url": settings.PUBLIC_URL}]
    assert document | {"servers": [{"url": "/"}]} == yaml.safe_load(COMMITTED.read_text())
    assert (posted.status_code, posted.json()["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.django_db
def test_the_pages_take_nothing_from_elsewhere_and_run_nothing_inline():
    answer = Consumer().http.get("/docs/")

    page = answer.content.decode()
    assert answer.status_code == 200
    policy = answer["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "form-action 'none'"} <= set(policy)
    assert "unsafe" not in answer["Content-Security-Policy"]
    assert page.count("<script") == page.count('<script src="/static/')
    assert "//" not in page
    assert "style=" not in page


def test_the_guide_has_every_code_with_what_to_do():
    guide = (settings.BASE_DIR / "docs" / "guide.md").read_text()
    shown = guide.partition("| code | status | what it means | what to do |\n|---|---|---|---|\n")[2].splitlines()
    ends = guide.partition("| code | what happened |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()

    told = [f"| `{name}` | {code.status} | {code.meaning} | {code.remedy} |" for name, code in CODES.items()]
    assert shown == told
    assert [row.split("`")[1] for row in ends] == [code.value for code in ErrorCode]


def test_every_code_is_told_by_an_operation_but_that_of_a_method_that_is_none(document):
    answers = [answer for shown in operations(document).values() for answer in shown["responses"].values()]

    assert {code for answer in answers for code in answer.get("x-error-codes", [])} == CODES.keys() - {
        "method_not_allowed"
    }
