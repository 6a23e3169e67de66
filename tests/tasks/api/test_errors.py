"""Errors: every code there is, produced, in the one shape and with the status and the headers that belong to it."""

import json
from unittest import mock

import jsonschema
import pytest
import yaml
from django.conf import settings
from django.db import connection
from django.test import Client
from drf_spectacular.generators import EndpointEnumerator

from billing.exceptions import Refusal
from tasks import lifecycle, runner
from tasks.api.codes import CODES, OF_STATUS
from tests import builders
from tests.config.running import free_port
from tests.tasks.api.client import Consumer

with_rows = pytest.mark.django_db(transaction=True)

# What only operators hear, in the admin.
OPERATORS = {
    "changed_since", "key_ended", "not_started", "nothing_charged", "price_in_force", "refund_too_large", "task_ended",
}  # fmt: skip
UNKNOWN = "/v1/tasks/task_01m806yepge72v4969hdkw0ka7"
UNKNOWN_FIRST = {("GET", UNKNOWN), ("GET", f"{UNKNOWN}/events")}


@pytest.fixture(scope="module")
def closed():
    """The validator of the document's error, which allows nothing beside what it names."""
    components = yaml.safe_load((settings.BASE_DIR / "openapi.yaml").read_text())["components"]
    for shape in (components["schemas"]["ErrorResponse"], components["schemas"]["ApiError"]):
        assert shape["additionalProperties"] is False
        assert set(shape["required"]) == set(shape["properties"])
    return jsonschema.Draft202012Validator({"$ref": "#/components/schemas/ErrorResponse", "components": components})


@pytest.fixture
def no_database():
    """Connections go to a port where nobody listens, and are refused."""
    connection.close()
    ours = {"HOST": "127.0.0.1", "PORT": str(free_port())}
    kept = {name: connection.settings_dict[name] for name in ours}

    def cut():
        connection.close()
        connection.settings_dict.update(ours)

    yield cut
    connection.settings_dict.update(kept)
    connection.close()


class World:
    """A consumer and what it needs to be refused."""

    def __init__(self, cut):
        self.cut = cut
        self.consumer = Consumer()
        self.to = builders.deployment("work")

    def create(self, consumer=None, **headers):
        return (consumer or self.consumer).post("/v1/tasks", {"model": "work", "input": {}}, **headers)

    def done(self):
        path = self.create()["Location"]
        runner.run_next(self.to.queue)
        return path

    def with_account(self, available="10", **fields):
        return Consumer(builders.account(available, **fields))


def with_another_body(world):
    world.create(Idempotency_Key="k")
    return world.consumer.post("/v1/tasks", {"model": "work", "input": {}, "priority": 1}, Idempotency_Key="k")


def without_content(world):
    path = world.done()
    world.consumer.call("DELETE", f"{path}/content")
    return world.consumer.post(f"{path}/rerun")


def with_one_pending(world):
    limited = world.with_account(pending_limit=1)
    world.create(limited)
    return world.create(limited)


def with_a_crash(world):
    with mock.patch.object(lifecycle, "submit", side_effect=RuntimeError("a secret detail")):
        return world.create()


def without_a_database(world):
    world.cut()
    return world.consumer.get("/v1/tasks")


def endpoint(world, number=0):
    wanted = {"url": f"http://127.0.0.1:9/{number}", "events": ["task.failed"]}
    return world.consumer.post("/v1/webhook_endpoints", wanted)


PRODUCERS = {
    "endpoint_exists": lambda world: [endpoint(world) for _ in range(2)][-1],
    "too_many_endpoints": lambda world: [endpoint(world, n) for n in range(11)][-1],
    "invalid_json": lambda world: world.consumer.post("/v1/tasks", b"{"),
    "invalid_header": lambda world: world.create(Idempotency_Key="k" * 256),
    "unauthorized": lambda world: world.consumer.http.get("/v1/tasks"),
    "invalid_api_key": lambda world: world.consumer.get("/v1/tasks", Authorization="Bearer cf_live_nobody"),
    "insufficient_balance": lambda world: world.create(world.with_account("0")),
    "spend_cap_reached": lambda world: world.create(world.with_account(monthly_cap="0.5")),
    "forbidden": lambda world: world.consumer.get("/v1/artifacts/forged"),
    "insufficient_scope": lambda world: Consumer(scopes=["tasks:write"]).get("/v1/account"),
    "account_disabled": lambda world: world.with_account(is_active=False).get("/v1/account"),
    "task_not_found": lambda world: world.consumer.get(UNKNOWN),
    "not_found": lambda world: world.consumer.get("/v1/nothing"),
    "method_not_allowed": lambda world: world.consumer.call("PUT", "/v1/tasks"),
    "not_acceptable": lambda world: world.consumer.get("/v1/account", Accept="image/png"),
    "idempotency_key_reused": with_another_body,
    "task_not_final": lambda world: world.consumer.post(f"{world.create()['Location']}/rerun"),
    "task_not_queued": lambda world: world.consumer.post(f"{world.done()}/pause"),
    "gone": without_content,
    "payload_too_large": lambda world: world.consumer.post("/v1/quotes", b" " * 2**20 + b"{}"),
    "unsupported_media_type": lambda world: world.consumer.post("/v1/tasks", b"<a/>", Content_Type="text/xml"),
    "invalid_request": lambda world: world.consumer.post("/v1/tasks", {"input": {}}),
    "invalid_cursor": lambda world: world.consumer.get("/v1/account/transfers?cursor=forged"),
    "unsupported_capability": lambda world: world.consumer.post("/v1/tasks", {"capability": "no.such", "input": {}}),
    "unsupported_model": lambda world: world.consumer.post("/v1/tasks", {"model": "nobody", "input": {}}),
    "rate_limited": lambda world: world.with_account(requests_per_minute=0).get("/v1/tasks"),
    "too_many_pending_tasks": with_one_pending,
    "internal_error": with_a_crash,
    "unavailable": without_a_database,
}


def test_every_code_has_a_producer_and_every_producer_a_code():
    assert PRODUCERS.keys() == CODES.keys()
    assert {OF_STATUS[status] for status in OF_STATUS} <= CODES.keys()
    assert all(CODES[code].status == status for status, code in OF_STATUS.items())


@with_rows
@pytest.mark.parametrize("code", PRODUCERS)
def test_every_code_is_produced_in_the_one_shape(code, closed, no_database):
    world = World(no_database)

    answer = PRODUCERS[code](world)

    shown = answer.json()
    closed.validate(shown)
    assert (shown["error"]["code"], answer.status_code) == (code, CODES[code].status)
    assert shown["error"]["retryable"] is CODES[code].retryable
    assert shown["error"]["request_id"] == answer["X-Request-Id"]
    assert answer["Content-Type"] == "application/json"
    assert answer.has_header("Retry-After") is (answer.status_code in (429, 503))
    assert answer.has_header("WWW-Authenticate") is (answer.status_code == 401)
    assert b"secret" not in answer.content


def test_the_schema_would_find_what_is_wrong(closed):
    right = dict.fromkeys(("param", "details")) | {"code": "gone", "message": "", "retryable": False}

    wrong = [{"error": right}, {"error": right | {"request_id": "r", "extra": 1}}, right]
    wrong += [{"error": right | {"request_id": "r", "code": "huh"}}]

    assert closed.is_valid({"error": right | {"request_id": "r"}})
    assert not any(closed.is_valid(shown) for shown in wrong)


def refusals(of=Refusal):
    return [of, *(found for below in of.__subclasses__() for found in refusals(below))]


@pytest.mark.parametrize("refusal", refusals(), ids=lambda refusal: refusal.__name__)
def test_every_refusal_is_what_its_code_says(refusal):
    if refusal.code in OPERATORS:
        assert refusal.code not in CODES
        return

    assert (refusal.status, refusal.retryable) == (CODES[refusal.code].status, CODES[refusal.code].retryable)


def endpoints():
    """Every path and method below /v1, with ids that name nothing."""
    found = [(method, path) for path, _, method, _ in EndpointEnumerator().get_api_endpoints()]
    made = [(method, path.replace("{task_id}", UNKNOWN.rpartition("/")[2])) for method, path in found]
    return sorted({(method, path.replace("{name}", "a").replace("{deployment}", "a")) for method, path in made})


@with_rows
def test_a_database_that_refuses_connections_is_a_503_everywhere(closed, no_database):
    consumer = Consumer()
    no_database()

    answers = {
        (method, path): consumer.call(method, path, {} if method == "POST" else None) for method, path in endpoints()
    }

    link = answers.pop(("GET", "/v1/artifacts/{signed}"))
    assert link.status_code == 403  # one that is none is told before anything is looked up
    assert len(answers) > 15
    for answer in answers.values():
        closed.validate(answer.json())
    assert {(answer.status_code, answer["Retry-After"]) for answer in answers.values()} == {(503, "2")}


@with_rows
def test_a_method_that_a_path_does_not_know_is_405_and_says_which_it_does(closed):
    consumer, known = Consumer(), {}
    for method, path in endpoints():
        known.setdefault(path, {"HEAD"} if method == "GET" else set()).add(method)

    for path, methods in known.items():
        for answer in (consumer.call(method, path) for method in ("PATCH", "OPTIONS")):
            closed.validate(answer.json())
            assert answer.status_code == 405
            assert methods <= set(answer["Allow"].split(", ")) <= methods | {"HEAD"}, path


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/v1/tasks/", "/v1/tasks/x/y/z", "/v1//tasks", "/v1/usage/x"]
)
def test_a_path_that_is_none_is_404_whatever_is_sent_there(path, closed):
    browser = Client(enforce_csrf_checks=True, raise_request_exception=False)

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = browser.generic(method, path, b"{", "text/xml")

        closed.validate(json.loads(answer.content))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@with_rows
def test_a_query_that_nobody_reads_is_refused_by_every_operation_and_counted(closed):
    consumer = Consumer()
    keyed = [(method, path) for method, path in endpoints() if "{signed}" not in path]

    for method, path in keyed:
        answer = consumer.call(method, f"{path}?format=xml", {} if method == "POST" else None)

        closed.validate(answer.json())
        # A task that there is none of is told first.
        expected = (404, None) if (method, path) in UNKNOWN_FIRST else (422, "/format")
        assert (answer.status_code, answer.json()["error"]["param"]) == expected, (method, path)
        assert answer.has_header("RateLimit-Remaining")


@with_rows
def test_a_query_about_a_task_is_refused():
    world = World(None)
    path = world.create()["Location"]

    answers = [world.consumer.get(f"{path}{query}") for query in ("?bogus=1", "/events?bogus=1", "/events?format=json")]

    shown = [(answer.status_code, answer.json()["error"]["param"]) for answer in answers]
    assert shown == [(422, "/bogus"), (422, "/bogus"), (422, "/format")]


@pytest.mark.parametrize("path", ["/v1", "/v1/tasks", "/v1/openapi.json", "/v1/nothing"])
def test_plain_http_to_an_https_service_is_refused_and_not_redirected(path, closed, settings):
    settings.SECURE_SSL_REDIRECT = True

    refusal = Client().post(path, b"{}", "application/json")
    page = Client().get("/admin/login/")

    closed.validate(refusal.json())
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (403, "forbidden")
    assert (page.status_code, page["Location"]) == (301, "https://testserver/admin/login/")
    assert Client().post(path, b"{}", "application/json", secure=True).status_code != 403
