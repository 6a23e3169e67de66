"""The Python client that openapi-python-client generates from the committed document, driven against a real service."""

import importlib
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from config.settings import BASE_DIR

pytestmark = [pytest.mark.clients, pytest.mark.timeout(200)]

FINAL = ("succeeded", "failed", "canceled")


class Generated:
    """`api.create_task(body=...)`: the operations and models of a generated package."""

    def __init__(self, package: str, url: str, key: str) -> None:
        self.models = importlib.import_module(f"{package}.models")
        self.operations = {
            path.stem: importlib.import_module(f"{package}.api.{path.parent.name}.{path.stem}")
            for path in Path(importlib.import_module(package).__file__).parent.glob("api/*/*_*.py")
            if path.stem != "__init__"
        }
        self.of = importlib.import_module(package).AuthenticatedClient
        self.client = self.of(base_url=url, token=key, raise_on_unexpected_status=True)

    def __getattr__(self, name):
        return lambda *path, **named: self.operations[name].sync_detailed(*path, client=self.client, **named)

    def input(self, **fields):
        return self.models.CreateTaskRequestInput.from_dict(fields)

    def until_final(self, task_id):
        ends = time.monotonic() + 30
        while (task := self.get_task(task_id).parsed).status.value not in FINAL:
            assert time.monotonic() < ends, task
            time.sleep(0.1)
        return task


@pytest.fixture(scope="module")
def api(service, tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    programs = Path(sys.executable).parent
    options = ["--meta", "none", "--fail-on-warning", "--output-path", folder / "counterfoil_client"]
    made = subprocess.run(
        [programs / "openapi-python-client", "generate", "--path", BASE_DIR / "openapi.yaml", *options],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(folder))
    generated = Generated("counterfoil_client", service.url, service.key)
    with generated.client:
        yield generated
    sys.path.remove(str(folder))


def submit(api, **fields):
    given = {"model": "text-analyze", "input_": api.input(text="Both halves match.", keywords=2)} | fields
    return api.create_task(body=api.models.CreateTaskRequest(**given))


def test_a_task_is_submitted_and_waited_for(api):
    answer = submit(api, client_reference="py")

    task = api.until_final(answer.parsed.task_id)

    assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/tasks/{task.task_id}")
    assert task.status is api.models.TaskStatus.SUCCEEDED
    assert task.output["counts"]["words"] == 3
    assert task.error is None
    assert task.billing.charged_credits == task.usage.credits_ == task.billing.quoted_credits
    assert {line.meter for line in task.usage.lines} >= {"characters", "input_tokens"}
    assert task.started_at < task.completed_at < task.deadline


def test_an_answer_waits_for_the_end(api):
    body = api.models.CreateTaskRequest(model="echo", input_=api.input(text="Here.", seconds=0.3))

    answer = api.create_task(body=body, prefer="wait=20")
    unchanged = api.get_task(answer.parsed.task_id, if_none_match=f'"{answer.parsed.seq}"')

    assert answer.headers["Preference-Applied"] == "wait=20"
    assert (answer.parsed.status.value, answer.parsed.output) == ("succeeded", "Here.")
    assert (unchanged.status_code, unchanged.parsed) == (304, None)


def test_money_is_quoted_and_stated(api):
    body = api.models.CreateTaskRequest(model="text-analyze", input_=api.input(text="Both halves match."))

    quote = api.create_quote(body=body).parsed
    task = api.create_task(body=body, prefer="wait=20").parsed
    moved = api.list_transfers(task=task.task_id, kind=[api.models.TransferKind.HOLD, api.models.TransferKind.CAPTURE])
    account = api.get_account().parsed
    used = api.list_usage(group_by=[api.models.UsageGroup.DAY, api.models.UsageGroup.METER]).parsed

    assert task.billing.charged_credits == task.billing.quoted_credits == quote.ceiling_credits
    assert [transfer.kind.value for transfer in moved.parsed.data] == ["capture", "hold"]
    buckets = (account.available_credits, account.held_credits, account.charged_credits)
    assert Decimal(account.granted_credits) == sum(map(Decimal, buckets))
    assert {row.meter for row in used.data} >= {"characters", "input_tokens"}


def test_what_is_offered_can_be_read(api):
    offered = {deployment.name: deployment for deployment in api.list_deployments().parsed.data}

    assert api.get_deployment("text-analyze").parsed == offered["text-analyze"]
    assert offered["text-analyze"].input_schema.to_dict()["required"] == ["text"]


def test_a_lost_answer_is_asked_for_again(api):
    body = api.models.CreateTaskRequest(model="text-analyze", input_=api.input(text="Once."))

    first = api.create_task(body=body, idempotency_key="once")
    again = api.create_task(body=body, idempotency_key="once")
    other = api.create_task(
        body=api.models.CreateTaskRequest(model="text-analyze", input_=api.input(text="Twice.")), idempotency_key="once"
    )

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert first.parsed.task_id == again.parsed.task_id
    assert other.parsed.error.code is api.models.ApiErrorCode.IDEMPOTENCY_KEY_REUSED


def test_tasks_are_listed_page_by_page(api):
    made = [submit(api, client_reference="pages").parsed.task_id for _ in range(3)]
    billing = [api.models.TaskPart.BILLING]

    first = api.list_tasks(client_reference="pages", limit=2, order=api.models.Order.ASC, expand=billing).parsed
    last = api.list_tasks(client_reference="pages", order=api.models.Order.ASC, cursor=first.next_cursor).parsed
    both = api.list_tasks(id=made[:2]).parsed
    unfinished = api.list_tasks(
        client_reference="pages", status=[api.models.TaskStatus.FAILED, api.models.TaskStatus.CANCELED]
    ).parsed

    assert [row.task_id for row in [*first.data, *last.data]] == made
    assert (first.has_more, last.has_more, last.next_cursor) == (True, False, None)
    assert first.data[0].billing.currency == "USD"
    assert not first.data[0].usage
    assert {row.task_id for row in both.data} == set(made[:2])
    assert unfinished.data == []


def test_a_task_is_canceled_and_run_again(api):
    long = submit(api, model="echo", input_=api.input(seconds=60)).parsed

    canceled = api.cancel_task(long.task_id, body=api.models.ReasonedRequest(reason="seen enough")).parsed
    again = api.rerun_task(long.task_id)
    api.cancel_task(again.parsed.task_id)
    events = api.list_task_events(long.task_id, after=1).parsed

    assert (canceled.status.value, canceled.cancel_reason) == ("canceled", "seen enough")
    assert (again.status_code, again.parsed.rerun_of) == (202, long.task_id)
    assert events.data[-1].type_ == "task.canceled"
    assert events.data[-1].actor is api.models.Actor.API_KEY


def test_a_failed_task_says_why(api):
    made = submit(api, model="echo", input_=api.input(fail="upstream_error")).parsed

    task = api.until_final(made.task_id)

    assert task.error.code is api.models.TaskErrorCode.UPSTREAM_ERROR
    assert task.billing.charged_credits == "0.0000"


def test_errors_come_as_their_model(api, service):
    unknown = api.get_task("task_01m806yepge72v4969hdkw0ka7")
    refused = submit(api, input_=api.input(text=7))
    with api.of(base_url=service.url, token="cf_live_nobody") as client:
        nobody = api.operations["list_tasks"].sync_detailed(client=client)

    codes = [(answer.status_code, answer.parsed.error.code.value) for answer in (unknown, refused, nobody)]
    assert codes == [(404, "task_not_found"), (422, "invalid_request"), (401, "invalid_api_key")]
    assert refused.parsed.error.param == "/input/text"


def test_an_endpoint_is_told_of_events_until_it_is_deleted(api):
    wanted = api.models.CreateWebhookEndpointRequest(
        url="http://127.0.0.1:9/hooks", events=[api.models.WebhookEvent.TASK_SUCCEEDED]
    )

    made = api.create_webhook_endpoint(body=wanted)
    twice = api.create_webhook_endpoint(body=wanted)
    listed = api.list_webhook_endpoints().parsed.data
    deleted = api.delete_webhook_endpoint(made.parsed.endpoint_id)

    assert (made.status_code, twice.status_code, deleted.status_code) == (201, 409, 204)
    assert twice.parsed.error.code is api.models.ApiErrorCode.ENDPOINT_EXISTS
    assert made.parsed in listed
    assert api.list_webhook_endpoints().parsed.data == []
