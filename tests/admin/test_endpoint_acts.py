"""Webhook endpoints in the admin: added and deleted by the verbs of the API, by whom, for a reason."""

import pytest

from tasks.models import Callback, WebhookEndpoint
from tasks.statuses import Status
from tests.admin.people import history, member, page_url, root, told
from tests.builders import account, task_that_is

pytestmark = pytest.mark.django_db
URL = "https://example.com/hook"
FIELDS = {"url": URL, "events": ["task.succeeded"], "description": "production", "reason": "asked by mail"}


def test_an_endpoint_is_added_and_told_from_then_on():
    owner = account()

    answer = root().do(owner, "add-endpoint", **FIELDS)

    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.account, endpoint.url, endpoint.events) == (owner, URL, ["task.succeeded"])
    assert told(answer) == [f"Acme: Added the webhook endpoint {URL}."]
    assert history(owner) == [f"Added the webhook endpoint {URL}. Reason: asked by mail"]
    task_that_is(Status.SUCCEEDED, of=owner)
    assert Callback.objects.get().endpoint == endpoint


def test_a_url_is_added_once_a_form_and_once_an_account():
    owner, person = account(), root()
    page = person.ask(owner, "add-endpoint")

    for _ in range(2):
        person.send(owner, "add-endpoint", page, **FIELDS)
    again = person.do(owner, "add-endpoint", **FIELDS)

    assert told(again) == ["Acme: The account has a webhook endpoint of this URL."]
    assert WebhookEndpoint.objects.count() == len(history(owner)) == 1


WRONG = [
    {"url": "ftp://example.com"},
    {"url": "javascript:alert(1)"},
    {"url": "https://a b"},
    {"url": "x" * 2049},
    {"url": "https://a/\x00"},
    {"events": []},
    {"events": ["everything"]},
    {"description": "x" * 501},
]


def test_an_endpoint_that_makes_no_sense_is_an_error_of_the_form():
    owner, person = account(), root()
    page = person.ask(owner, "add-endpoint")

    for wrong in WRONG:
        assert person.send(owner, "add-endpoint", page, **FIELDS | wrong).context["form"].errors, wrong
    assert not WebhookEndpoint.objects.exists()


def test_a_deleted_endpoint_is_told_no_more_and_stays_deleted():
    owner, person = account(), root()
    person.do(owner, "add-endpoint", **FIELDS)
    endpoint = WebhookEndpoint.objects.get()
    task_that_is(Status.SUCCEEDED, of=owner)

    answer = person.do(endpoint, "delete-endpoint", reason="moved")
    again = person.do(endpoint, "delete-endpoint", reason="moved")

    endpoint.refresh_from_db()
    assert endpoint.deleted_at is not None
    assert Callback.objects.get().status == "failed"
    assert (told(answer), told(again)) == (
        [f"{URL}: Deleted the webhook endpoint."], [f"{URL}: it was deleted before."],
    )  # fmt: skip
    assert history(endpoint) == ["Deleted the webhook endpoint. Reason: moved"]


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_endpoints_are_looked_after_by_whoever_acts(group):
    owner = account()
    endpoint = WebhookEndpoint.objects.create(account=owner, url=URL, events=["task.failed"])
    person, allowed = member(group), group != "Support"

    assert person.ask(owner, "add-endpoint").status_code == (200 if allowed else 403)
    assert person.ask(endpoint, "delete-endpoint").status_code == (200 if allowed else 403)
    page = person.get(page_url(owner)).content.decode()
    assert URL in page
    assert ("delete-endpoint" in page) == allowed
