"""Whatever the document allows or forbids is answered as the document says."""

import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from config.settings import BASE_DIR
from config.wsgi import application
from tasks.api.operations import OPERATIONS
from tasks.identifiers import public_id
from tasks.statuses import Status
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
# A value that its schema allows is refused all the same when it names what is not there, or what cannot be done now.
CHECKS = {
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "304", "402", "403", "404", "409", "410", "416", "422"],
    },
}


@pytest.fixture(scope="module")
def document():
    config = schemathesis.Config.from_dict({"checks": CHECKS})
    loaded = schemathesis.openapi.from_dict(yaml.safe_load((BASE_DIR / "openapi.yaml").read_text()), config=config)
    loaded.app = application
    return loaded


@pytest.fixture
def consumer():
    consumer = Consumer(builders.account("1000000", requests_per_minute=1_000_000))
    consumer.to = builders.deployment()
    # The last two wait in the queue: those before them are claimed.
    made = [Status.SUCCEEDED, Status.FAILED, Status.RUNNING, Status.QUEUED, Status.QUEUED]
    consumer.tasks = [builders.task_that_is(status, of=consumer.account, to=consumer.to) for status in made]
    consumer.post(f"/v1/tasks/{public_id(consumer.tasks[-1].pk)}/cancel")
    return consumer


def attack(document, consumer, operation, mode, **more):
    method, path = operation
    known = st.sampled_from([public_id(task.pk) for task in consumer.tasks])
    models = st.sampled_from([consumer.to.name, "text-analyze"])

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), **more)
    @given(document[path][method].as_strategy(mode), st.none() | known, st.none() | models)
    def check(case, task_id, model):
        # A list without members is not seen on the wire, whatever the schema says of it.
        assume(all(value not in ([], {}) for value in (case.query or {}).values()))
        # And a number in place of a list of ids is a list of one text there.
        assume(not isinstance((case.query or {}).get("id"), int | float))
        if model and mode == GenerationMode.POSITIVE and operation == ("POST", "/v1/tasks"):
            case.body["model"] = model
        if task_id and "task_id" in case.path_parameters:
            case.path_parameters["task_id"] = task_id
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {consumer.secret}"})
        if answer.status_code >= 400:
            told = case.operation.definition.raw["responses"][str(answer.status_code)]
            assert answer.json()["error"]["code"] in told["x-error-codes"]

    check()


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_a_few_requests_of_every_operation_are_answered_as_the_document_says(document, consumer, operation):
    for mode in MODES:
        attack(document, consumer, operation, mode, max_examples=4, derandomize=True)


DEEP = b'{"input": {"a": ' + b"[" * 40 + b"]" * 40 + b"}}"
BODIES = [
    b"{",
    b'{"reason": "cut of',
    b"\xff\xfe",
    b"[]",
    b"null",
    b"[" * 200_000,
    DEEP,
    b'{"reason": NaN}',
    b'{"reason": 1e999, "input": {"seconds": 1e999}}',
    b'{"reason": ' + b"9" * 5000 + b"}",
    b'{"reason": "\\u0000", "input": {"a": "\\u0000"}}',
    b'{"reason": "\\ud800", "input": {"a": "\\ud800"}}',
    b'{"reason": "a", "reason": "b"}',
    b'{"reason": {}, "input": 7, "model": [], "deadline": "2026-11-21T10:00:00"}',
    b'{"huh": 1}',
    b'"' + b"x" * 2**20 + b'"',
]
TAKING = [operation for operation in OPERATIONS if operation[0] != "GET"]


def test_a_body_that_nobody_should_send_is_refused_by_every_operation(document, consumer):
    for method, path in TAKING:
        responses = document[path][method].definition.raw["responses"]
        at = path.replace("{task_id}", public_id(consumer.tasks[0].pk))

        for body in BODIES:
            answer = consumer.call(method, at, body)

            assert answer.status_code in (400, 413, 422), (method, path, body[:50], answer.content)
            codes = responses[str(answer.status_code)]["x-error-codes"]
            assert answer.json()["error"]["code"] in codes, (method, path, body[:50])


@pytest.mark.clients
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_hundreds_of_requests_of_every_operation_are_answered_as_the_document_says(document, consumer, operation, mode):
    attack(document, consumer, operation, mode, max_examples=200)
