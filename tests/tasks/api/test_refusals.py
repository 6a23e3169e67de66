"""What is refused: with its code and a pointer, before anything is written or held."""

import json
import time
from datetime import timedelta
from io import BytesIO
from unittest import mock

import pytest
from django.db import OperationalError
from django.utils import timezone

from billing.models import Account, Transfer
from config.wsgi import application
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

DEEP = b'{"input": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}"
LONG = "x" * 2100


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def to():
    return builders.deployment(name="work", timeout=60, max_retries=2, max_lifetime=3600, ttl=600)


BODIES = [
    (b"{", 400, "invalid_json", None),
    (b"\xff\xfe", 400, "invalid_json", None),
    (b'{"a": NaN}', 400, "invalid_json", None),
    (b'{"a": 1} x', 400, "invalid_json", None),
    (b"[]", 422, "invalid_request", ""),
    (b'"text"', 422, "invalid_request", ""),
    (b"null", 422, "invalid_request", ""),
    (b"[" * 200_000, 422, "invalid_request", ""),
    (DEEP, 422, "invalid_request", "/input/a" + "/0" * 31),
    (b'{"input": {"a": {"b": 1, "b": 2}}}', 422, "invalid_request", "/input/a/b"),
    (b'{"input": {"x/y~z": 18446744073709551616}}', 422, "invalid_request", "/input/x~1y~0z"),
    (b'{"input": {"x": -9223372036854775809}}', 422, "invalid_request", "/input/x"),
    (b'{"input": {"x": 1e999}}', 422, "invalid_request", "/input/x"),
    (b'{"input": {"x": ' + b"9" * 5000 + b"}}", 422, "invalid_request", "/input/x"),
    (b'{"input": {"x": ["a\\u0000b"]}}', 422, "invalid_request", "/input/x/0"),
    (b'{"input": {"x": "\\ud800"}}', 422, "invalid_request", "/input/x"),
    (b'{"input": {"k\\u0000": 1}}', 422, "invalid_request", "/input/k\N{REPLACEMENT CHARACTER}"),
    (b'"' + b"x" * 2**20 + b'"', 413, "payload_too_large", None),
]


@pytest.mark.parametrize(("sent", "status", "code", "param"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_nobody_should_send(consumer, sent, status, code, param):
    answer = consumer.post("/v1/tasks", sent)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert nothing_was_written()


LONG_KEY = b"k" * 520_000
MANY = b",".join([b"0"] * 260_000)
KEYS = b",".join(b'"%x":0' % number for number in range(100_000))
HOSTILE = [
    (b'{"%s":[%s]}' % (LONG_KEY, MANY), "/" + "k" * 498 + "\u2026"),
    (b'{"input":{"%s":[%s,"\\u0000"]}}' % (LONG_KEY, MANY), "/input/" + "k" * 492 + "\u2026"),
    (b'{"%s":1}' % (b"k" * 1_000_000), "/" + "k" * 498 + "\u2026"),
    (b'{"%s":1,"%s":1}' % (LONG_KEY, LONG_KEY), "/" + "k" * 498 + "\u2026"),
    (b'{"input":{},"callback":{"%s":1}}' % (b"/" * 1_000_000), "/callback/" + "~1" * 244 + "~\u2026"),
    (b'{"input":{},"metadata":{"%s":1}}' % (b"~" * 1_000_000), "/metadata/" + "~0" * 244 + "~\u2026"),
    (b"{%s}" % KEYS, "/0"),
    (b'{"metadata":{%s}}' % KEYS, "/input"),
    (b'{"a":[%s]}' % b",".join([b"[" * 29 + b"]" * 29] * 17_000), "/a"),
    (b'{"a":%s}' % (b"[" + b",".join([b'{"":0}'] * 145_000) + b"]"), "/a"),
    (b'{"a":1.%s}' % (b"1" * 1_000_000), "/a"),
]


@pytest.mark.parametrize(("sent", "param"), HOSTILE, ids=range(len(HOSTILE)))
def test_a_megabyte_made_to_hurt_is_refused_at_once_and_not_sent_back(consumer, sent, param):
    started = time.process_time()

    answer = consumer.post("/v1/tasks", sent)

    assert time.process_time() - started < 3
    assert (answer.status_code, len(answer.content) < 2000) == (422, True)
    assert len(answer.json()["error"]["param"]) <= 500
    assert answer.json()["error"]["param"] == param


def test_a_long_parameter_is_not_sent_back_whole(consumer):
    answers = [consumer.get(f"/v1/tasks?{query}") for query in ("k" * 5000, "expand=" + "k" * 5000, "id=" + "k" * 5000)]

    assert {answer.status_code for answer in answers} == {422}
    assert max(len(answer.content) for answer in answers) < 2000


FIELDS = [
    ({"huh": 1}, "/huh"),
    ({"input": None}, "/input"),
    ({"input": []}, "/input"),
    ({"input": {"seconds": "soon"}}, "/input/seconds"),
    ({"model": 7}, "/model"),
    ({"model": True}, "/model"),
    ({"metadata": {"k": 1}}, "/metadata/k"),
    ({"metadata": {"k": "v" * 501}}, "/metadata/k"),
    ({"metadata": {"a/b": None}}, "/metadata/a~1b"),
    ({"metadata": {f"k{i}": "v" for i in range(51)}}, "/metadata"),
    ({"metadata": "x"}, "/metadata"),
    ({"callback": {"url": "https://example.com/" + LONG}}, "/callback/url"),
    ({"callback": {"url": "ftp://example.com/"}}, "/callback/url"),
    ({"callback": {"url": "https://user:pw@example.com/"}}, "/callback/url"),
    ({"callback": {"url": "not a url"}}, "/callback/url"),
    ({"callback": {}}, "/callback/url"),
    ({"callback": {"url": "https://example.com", "secret": "x"}}, "/callback/secret"),
    ({"client_reference": "r" * 256}, "/client_reference"),
    ({"client_reference": 5}, "/client_reference"),
    ({"priority": 10}, "/priority"),
    ({"priority": -1}, "/priority"),
    ({"priority": "5"}, "/priority"),
    ({"priority": 1.5}, "/priority"),
    ({"priority": True}, "/priority"),
    ({"timeout": 0}, "/timeout"),
    ({"timeout": 61}, "/timeout"),
    ({"max_retries": 3}, "/max_retries"),
    ({"deadline": "2026-11-21"}, "/deadline"),
    ({"deadline": "2026-11-21T10:00:00"}, "/deadline"),
    ({"deadline": "2001-01-01T00:00:00Z"}, "/deadline"),
    ({"deadline": "9999-12-31T23:59:59Z"}, "/deadline"),
    ({"deadline": 1700000000}, "/deadline"),
    ({"not_before": "0001-01-01T00:00:00+14:00"}, "/not_before"),
    ({"deadline": lambda now: now + timedelta(hours=2)}, "/deadline"),
    ({"not_before": lambda now: now + timedelta(hours=2)}, "/not_before"),
    (
        {"not_before": lambda now: now + timedelta(minutes=9), "deadline": lambda now: now + timedelta(minutes=8)},
        "/not_before",
    ),
]


@pytest.mark.parametrize(("fields", "param"), FIELDS, ids=range(len(FIELDS)))
def test_a_field_out_of_bounds_is_pointed_at(consumer, to, fields, param):
    now = timezone.now()
    sent = {name: value(now).isoformat() if callable(value) else value for name, value in fields.items()}

    answer = consumer.create(to, **sent)

    assert answer.status_code == 422, answer.content
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("invalid_request", param)
    assert nothing_was_written()


def test_what_lies_just_within_the_bounds_is_taken(consumer, to):
    deadline = (timezone.now() + timedelta(minutes=59)).isoformat()

    answer = consumer.create(
        to,
        metadata={f"k{i}": "v" * 500 for i in range(50)},
        callback={"url": "https://example.com/" + "x" * 2028},
        client_reference="r" * 255,
        timeout=60,
        max_retries=2,
        deadline=deadline,
        priority=0,
        input={"output": [9223372036854775807, -9223372036854775808, 1e308, "\U0010ffff"]},
    )

    assert answer.status_code == 202, answer.content
    assert answer.json()["input"]["output"] == [9223372036854775807, -9223372036854775808, 1e308, "\U0010ffff"]


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ({"model": "nobody", "input": {}}, "unsupported_model", "/model"),
        ({"capability": "nobody", "input": {}}, "unsupported_capability", "/capability"),
        ({"capability": "text.nothing", "model": "work", "input": {}}, "unsupported_model", "/model"),
        ({"input": {}}, "invalid_request", "/capability"),
        ({"model": "asleep", "input": {}}, "unsupported_model", "/model"),
        ({"model": "gone", "input": {}}, "unsupported_capability", "/capability"),
    ],
)
def test_an_unknown_capability_or_model_is_422(consumer, to, sent, code, param):
    builders.deployment("asleep", is_active=False)
    builders.deployment("gone", capability="no.longer.installed")

    answer = consumer.post("/v1/tasks", sent)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, code, param)
    assert nothing_was_written()


def test_no_balance_is_402_and_holds_nothing(to):
    poor = Consumer(builders.account("0.9999"))

    answer = poor.create(to)

    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_balance")
    assert builders.buckets(poor.account) == {"available": builders.Decimal("0.9999"), "held": 0, "charged": 0}
    assert nothing_was_written()


@pytest.mark.parametrize("bound", ["999999999999999999", "999999999999"])
def test_a_quote_beyond_all_credits_is_402(consumer, bound):
    dear = builders.deployment(prices=(("characters", "9999999999"),))

    answer = consumer.create(dear, input={"bound": {"characters": bound}})

    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "insufficient_balance")


def test_a_reached_cap_is_402(to):
    capped = Consumer(builders.account("10", monthly_cap="1.5"))

    first, second = capped.create(to), capped.create(to)

    assert (first.status_code, second.status_code) == (202, 402)
    assert second.json()["error"]["code"] == "spend_cap_reached"


def test_too_many_unfinished_tasks_are_429(to):
    limited = Consumer(builders.account("10", pending_limit=1))
    full = builders.deployment("full", max_pending=1)

    answers = [limited.create(to), limited.create(to)]
    other = Consumer()
    others = [other.create(full), other.create(full)]

    assert [answer.status_code for answer in answers + others] == [202, 429, 202, 429]
    for answer in (answers[1], others[1]):
        assert (answer.json()["error"]["code"], answer.json()["error"]["retryable"]) == ("too_many_pending_tasks", True)
        assert int(answer["Retry-After"]) > 0
    assert Account.objects.get(pk=limited.account.pk).pending == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/tasks/x/y/z", 404, "not_found"),
        ("PUT", "/v1/tasks", 405, "method_not_allowed"),
        ("DELETE", "/v1/tasks/task_01m806yepge72v4969hdkw0ka7", 405, "method_not_allowed"),
        ("GET", "/v1/tasks/task_01m806yepge72v4969hdkw0ka7/cancel", 405, "method_not_allowed"),
    ],
)
def test_a_wrong_door_is_told_in_the_same_shape(consumer, method, path, status, code):
    answer = consumer.call(method, path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"].keys() == {"code", "message", "retryable", "request_id", "param", "details"}


def test_another_media_type_is_415_and_another_taste_406(consumer, to):
    headers = {"HTTP_AUTHORIZATION": f"Bearer {consumer.secret}"}

    form = consumer.http.post("/v1/tasks", {"model": to.name}, **headers)
    taste = consumer.get("/v1/tasks", Accept="application/xml")

    assert (form.status_code, form.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert (taste.status_code, taste.json()["error"]["code"]) == (406, "not_acceptable")


def test_the_request_id_is_echoed_or_made(consumer):
    echoed = consumer.get("/v1/nothing", X_Request_Id="mine-7")
    made = consumer.get("/v1/nothing")
    refused = consumer.get("/v1/tasks", X_Request_Id="x" * 129)

    assert echoed["X-Request-Id"] == echoed.json()["error"]["request_id"] == "mine-7"
    assert made["X-Request-Id"] == made.json()["error"]["request_id"]
    assert made["X-Request-Id"].startswith("req_")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_header")


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/nothing", "/v1/tasks/task_01m806yepge72v4969hdkw0ka7"])
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"HTTP_HOST": "evil.example"}),
        ("", {"HTTP_HOST": "a b"}),
        ("", {"HTTP_ACCEPT": "a/b; x*=nope''%41"}),
        ("&".join(["a=1"] * 1001), {}),
    ],
)
def test_what_django_trips_on_is_400_in_the_same_shape_and_no_traceback(consumer, caplog, path, query, headers):
    answer = consumer.http.get(f"{path}?{query}", HTTP_AUTHORIZATION=f"Bearer {consumer.secret}", **headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_header")
    assert answer["X-Request-Id"] == answer.json()["error"]["request_id"]
    assert caplog.records == []


UNREADABLE = [
    "a/b; x*=nope''%41",
    "application/json; x*=nope''%41",
    "application/json; charset*=utf-8''%00",
    "application/json; charset=base64",
    "application/json; charset=undefined",
    "application/json; charset=utf-16",
]


@pytest.mark.parametrize("content_type", UNREADABLE)
@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 415)])
def test_a_content_type_that_nobody_can_read_is_one_that_nobody_knows(consumer, caplog, content_type, method, status):
    query = "client_reference=%ff" if method == "GET" else ""

    told, body = from_the_wire(consumer, b"{}", REQUEST_METHOD=method, QUERY_STRING=query, CONTENT_TYPE=content_type)

    assert told == status
    assert body.get("error", {}).get("code") == (None if status == 200 else "unsupported_media_type")
    assert caplog.records == []


def from_the_wire(consumer, body, path="/v1/tasks", **more):
    """The status and the body that a server in front of the application gets for what it was sent."""
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_AUTHORIZATION": f"Bearer {consumer.secret}",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": BytesIO(body),
        "wsgi.url_scheme": "http",
    }
    told = []
    response = application(environ | more, lambda line, headers: told.append(line))
    try:
        return int(told[0].split()[0]), json.loads(b"".join(response))
    finally:
        response.close()


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/nothing", "/admin/login/", "/docs/", "/static/nothing"])
@pytest.mark.parametrize("name", ["HTTP_ACCEPT", "CONTENT_TYPE"])
def test_a_header_that_takes_long_to_read_is_refused_unread(consumer, path, name):
    began = time.process_time()

    status, told = from_the_wire(consumer, b"{}", path, **{name: 'a/b;c="' + ";" * 200_000})

    assert (status, told["error"]["code"]) == (400, "invalid_header")
    assert time.process_time() - began < 3


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}
LARGE = b" " * (2**20 + 1)


@pytest.mark.parametrize("path", ["/v1/tasks/{}/cancel", "/admin/login/"])
@pytest.mark.parametrize(
    ("body", "announced", "status", "code"),
    [
        (b"", {"CONTENT_LENGTH": "20"}, 400, "invalid_json"),
        (b"{}", {"CONTENT_LENGTH": "20"}, 400, "invalid_json"),
        (b"", CHUNKED, 400, "invalid_json"),
        (LARGE, CHUNKED, 413, "payload_too_large"),
        (LARGE, {}, 413, "payload_too_large"),
    ],
)
def test_a_body_that_is_cut_off_or_too_long_is_not_taken_for_another(consumer, to, path, body, announced, status, code):
    made = consumer.create(to).json()["task_id"]

    told, error = from_the_wire(consumer, body, path.format(made), **announced)

    assert (told, error["error"]["code"]) == (status, code)
    assert consumer.get(f"/v1/tasks/{made}").json()["status"] == "queued"


def test_a_body_that_says_it_is_too_long_is_not_read(consumer):
    body = BytesIO(LARGE)

    told = [from_the_wire(consumer, LARGE, path, **{"wsgi.input": body})[0] for path in ("/v1/tasks", "/admin/login/")]

    assert told == [413, 413]
    assert body.tell() == 0


def test_a_body_in_chunks_is_whole_when_it_ends(consumer, to):
    status, made = from_the_wire(consumer, json.dumps({"model": to.name, "input": {}}).encode(), **CHUNKED)

    assert (status, made["model"]) == (202, to.name)


def test_a_database_that_is_away_is_503(consumer, to):
    with mock.patch("tasks.api.authentication.one", side_effect=OperationalError("gone")):
        answer = consumer.create(to)

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer["Retry-After"]


def test_a_crash_of_ours_says_so_and_no_more(consumer, to):
    with mock.patch("tasks.lifecycle.submit", side_effect=RuntimeError("secret detail")):
        answer = consumer.create(to)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret detail" not in json.dumps(answer.json())


def test_a_bound_that_is_no_quantity_is_a_crash_of_ours(consumer, to):
    with mock.patch("tests.workload.capabilities.Work.bound", return_value={"audio_seconds": True}):
        answer = consumer.create(to)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert nothing_was_written()


def nothing_was_written():
    return not Task.objects.exists() and not Transfer.objects.exclude(kind="grant").exists()
