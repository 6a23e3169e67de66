"""Another account's is exactly nothing: the same answer as for an id that nobody has, by the same statements."""

from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from drf_spectacular.generators import EndpointEnumerator

from tasks import runner
from tasks.identifiers import ENDPOINT, parse_id, public_id
from tasks.models import Artifact, Callback, Task, TaskEvent, WebhookEndpoint
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

# Every route with an id of an account's in its path, and what is sent to it.
OWNED = {
    ("GET", "/v1/tasks/{task_id}"): [{}, {"If_None_Match": '"5"'}, {"Prefer": "wait=1"}],
    ("POST", "/v1/tasks/{task_id}/cancel"): [{}],
    ("POST", "/v1/tasks/{task_id}/pause"): [{}],
    ("POST", "/v1/tasks/{task_id}/resume"): [{}],
    ("POST", "/v1/tasks/{task_id}/rerun"): [{}, {"Idempotency_Key": "k"}],
    ("GET", "/v1/tasks/{task_id}/events"): [{}, {"Accept": "text/event-stream"}, {"Last_Event_ID": "1"}],
    ("DELETE", "/v1/tasks/{task_id}/content"): [{}],
    ("POST", "/v1/tasks/{task_id}/callback/redeliver"): [{}],
    ("GET", "/v1/tasks/{task_id}/artifacts/{name}"): [{}],
    ("GET", "/v1/webhook_endpoints/{endpoint_id}"): [{}],
    ("DELETE", "/v1/webhook_endpoints/{endpoint_id}"): [{}],
}
# Routes whose names belong to everybody: the catalogue, and links whose signature is the key.
EVERYBODYS = {("GET", "/v1/deployments/{deployment}"), ("GET", "/v1/artifacts/{signed}")}
# Parameters that name a task.
NAMED = ["/v1/tasks?id={task_id}", "/v1/tasks?expand=all&id={task_id}", "/v1/account/transfers?task={task_id}"]
VOLATILE = ("X-Request-Id", "RateLimit-Remaining", "RateLimit-Reset")


@contextmanager
def statements():
    """Every statement that is executed, as it was before its parameters went in."""
    seen, plain = [], psycopg.Cursor.execute

    def execute(cursor, query, *args, **kwargs):
        seen.append(query.as_string() if hasattr(query, "as_string") else str(query))
        return plain(cursor, query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", execute)
        yield seen


@pytest.fixture
def theirs():
    """A finished task of somebody's, with all that a task can have."""
    owner, to = Consumer(), builders.deployment()
    work = {"files": {"notes.txt": "x"}, "output": "done"}
    made = owner.create(to, input=work, callback={"url": "http://127.0.0.1:9/"}).json()
    runner.run_next(to.queue)
    assert Artifact.objects.count() == Callback.objects.count() == 1
    owner.post("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/", "events": ["task.failed"]})
    return made["task_id"]


def everything():
    kept = (Task, TaskEvent, Callback, Artifact, WebhookEndpoint)
    return [list(model.objects.order_by("pk").values()) for model in kept]


def filled(path, task_id, *, beside=0):
    """The path with what is theirs in it, or what is just beside that and nobody's."""
    endpoint = WebhookEndpoint.objects.get().pk.int
    return path.format(
        task_id=public_id(UUID(int=parse_id(task_id).int + beside)),
        name="notes.txt",
        endpoint_id=public_id(UUID(int=endpoint + beside), prefix=ENDPOINT),
    )


def answer_to(stranger, method, path, headers):
    """The answer without what differs between any two, and the statements that it took."""
    with statements() as seen:
        answer = stranger.call(method, path, {} if method == "POST" else None, **headers)
    told = {name: value for name, value in answer.items() if name not in VOLATILE}
    body = answer.json()
    body.get("error", {}).pop("request_id", None)
    return (answer.status_code, told, body), seen


def routes():
    found = {(method, path) for path, _, method, _ in EndpointEnumerator().get_api_endpoints() if "{" in path}
    assert len(found) > 8
    return found


def test_every_route_with_a_name_in_it_is_in_a_table():
    assert routes() == OWNED.keys() | EVERYBODYS


@pytest.mark.parametrize(("method", "path"), OWNED)
def test_a_stranger_hears_what_he_hears_of_nothing_by_the_same_statements(method, path, theirs):
    stranger, before = Consumer(), everything()
    paths = [filled(path, theirs), filled(path, theirs, beside=1)]
    answer_to(stranger, method, paths[1], {})  # whatever is done once in a process, or a connection

    for headers in OWNED[method, path]:
        (told, asked), (told_of_nothing, asked_of_nothing) = [answer_to(stranger, method, at, headers) for at in paths]

        assert told == told_of_nothing
        assert told[0] == 404
        assert asked == asked_of_nothing
        assert asked != []
    assert everything() == before


@pytest.mark.parametrize("path", NAMED)
def test_a_list_finds_nothing_of_others_by_the_same_statements(path, theirs):
    stranger = Consumer()
    unknown = public_id(UUID(int=parse_id(theirs).int + 1))
    paths = [path.format(task_id=task_id) for task_id in (theirs, unknown)]
    answer_to(stranger, "GET", paths[1], {})

    (told, asked), (told_of_nothing, asked_of_nothing) = [answer_to(stranger, "GET", at, {}) for at in paths]

    assert told == told_of_nothing
    assert (told[0], told[2]["data"]) == (200, [])
    assert asked == asked_of_nothing
    assert asked != []


def test_the_owner_would_be_answered(theirs):
    owner = Consumer(Task.objects.get().account)

    answers = [
        owner.call(method, filled(path, theirs), {} if method == "POST" else None)
        for method, path in OWNED
        if not path.endswith(("/pause", "/resume", "/content"))
    ]

    assert {answer.status_code for answer in answers} == {200, 202, 204, 302}
    assert all(owner.get(path.format(task_id=theirs)).json()["data"] for path in NAMED)
