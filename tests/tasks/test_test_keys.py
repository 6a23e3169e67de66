"""Test keys: an account of their own, tasks that end as told, and test.echo in place of every capability."""

from datetime import timedelta
from decimal import Decimal

import pytest

from billing import audit, credentials
from billing.models import ApiKey, Transfer
from billing.twins import twin_of
from tasks import runner
from tasks.capabilities import REGISTRY, test_echo
from tasks.models import Task
from tests.builders import account, deployment, key
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)
TEXT = {"text": "one two three"}


@pytest.fixture
def to():
    return deployment(capability="text.analyze", prices=(("task", "1"), ("characters", "0.5")))


@pytest.fixture
def tester():
    return Consumer(twin_of(account())[0])


def shown(tester, made):
    return tester.get(f"/v1/tasks/{made['task_id']}").json()


def test_a_test_is_quoted_as_its_model_says_and_test_echo_runs_instead(tester, to, monkeypatch):
    monkeypatch.setattr(REGISTRY["text.analyze"], "run", None)
    made = tester.create(to, input=TEXT).json()

    assert runner.run_next(to.queue)

    task = shown(tester, made)
    assert (made["test"], made["capability"], made["model"]) == (True, "text.analyze", to.name)
    assert made["billing"]["quoted_credits"] == "7.5000"
    assert (task["status"], task["output"]["test"]) == ("succeeded", True)
    assert task["output"]["message"] == "This is a test: text.analyze did not run."
    assert (task["usage"]["characters"], task["billing"]["charged_credits"]) == (7, "4.5000")
    assert audit.run().holds


@pytest.mark.parametrize("outcome", [test_echo.SUCCEEDED, *test_echo.CODES])
def test_a_test_ends_as_it_was_told(tester, to, outcome):
    made = tester.create(to, input=TEXT, test_outcome=outcome).json()

    runner.run_next(to.queue)

    task = shown(tester, made)
    ended = task["error"]["code"] if task["error"] else task["status"]
    assert ended == outcome
    assert task["billing"]["charged_credits"] == ("4.5000" if outcome == "succeeded" else "0.0000")
    assert audit.run().holds


def test_a_rerun_of_a_test_is_one_that_ends_as_told(tester, to):
    made = tester.create(to, input=TEXT, test_outcome="timeout").json()
    runner.run_next(to.queue)

    again = tester.post(f"/v1/tasks/{made['task_id']}/rerun").json()
    runner.run_next(to.queue)

    task = shown(tester, again)
    assert (task["test"], task["error"]["code"]) == (True, "timeout")


def test_a_test_of_test_echo_does_as_it_is_told(tester, settings):
    settings.ENABLE_TEST_CAPABILITIES = True
    to = deployment(capability="test.echo")
    said = tester.create(to, input={"output": 7, "steps": 0}).json()
    runner.run_next(to.queue)
    told = tester.create(to, input={"output": 7, "steps": 0}, test_outcome="upstream_error").json()
    runner.run_next(to.queue)

    assert shown(tester, said)["output"] == 7
    assert shown(tester, told)["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("outcome", ["succeeded", "timeout"])
def test_an_outcome_is_refused_with_a_live_key(to, outcome):
    live = Consumer()

    answer = live.create(to, input=TEXT, test_outcome=outcome)

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "/test_outcome")
    assert not Task.objects.exists()


@pytest.mark.parametrize("outcome", ["crash", "canceled", "", 1, ["timeout"]])
def test_an_outcome_that_no_task_has_is_refused(tester, to, outcome):
    answer = tester.create(to, input=TEXT, test_outcome=outcome)

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "/test_outcome")


def test_a_test_is_checked_as_any_task(tester, to):
    wrong_input = tester.create(to, input={"text": 1})
    wrong_model = tester.post("/v1/tasks", {"model": "nothing", "input": {}})

    assert wrong_input.json()["error"]["param"] == "/input/text"
    assert wrong_model.json()["error"]["code"] == "unsupported_model"


def test_a_test_runs_where_test_echo_is_not_for_live_keys(tester, to, settings):
    settings.DEBUG = settings.ENABLE_TEST_CAPABILITIES = False

    made = tester.create(to, input=TEXT).json()
    runner.run_next(to.queue)

    assert shown(tester, made)["status"] == "succeeded"


def test_test_keys_and_live_keys_do_not_see_each_others_tasks_nor_credits(to):
    live = Consumer()
    tester = Consumer(twin_of(live.account)[0])
    made = live.create(to, input=TEXT).json()["task_id"]
    tested = tester.create(to, input=TEXT).json()["task_id"]

    for who, other in ((live, tested), (tester, made)):
        assert who.get(f"/v1/tasks/{other}").status_code == 404
        assert who.post(f"/v1/tasks/{other}/cancel").status_code == 404
        assert [row["task_id"] for row in who.get("/v1/tasks").json()["data"]] != [other]
    assert (live.secret[:8], tester.secret[:8]) == ("cf_live_", "cf_test_")
    assert set(Transfer.objects.filter(task_id__isnull=False).values_list("account", flat=True)) == {
        live.account.pk, tester.account.pk
    }  # fmt: skip


def test_the_key_of_a_request_is_the_one_that_is_capped(to):
    live = Consumer(monthly_cap=Decimal("10"))
    other = Consumer(live.account)

    answers = [live.create(to, input=TEXT) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 402]
    assert answers[1].json()["error"]["code"] == "spend_cap_reached"
    assert other.create(to, input=TEXT).status_code == 202
    assert ApiKey.objects.get(pk=live.api_key.pk).month_spent == Decimal("7.5")
    assert audit.run().holds


def test_both_secrets_of_a_rolled_key_are_good_for_the_overlap(to):

    rolled = Consumer()
    made = rolled.create(to, input=TEXT).json()["task_id"]
    old, new = rolled.secret, credentials.roll(rolled.api_key, overlap=timedelta(hours=1))

    def both():
        seen = {}
        for name, secret in (("old", old), ("new", new)):
            rolled.secret = secret
            seen[name] = {rolled.get(f"/v1/tasks/{made}").status_code, rolled.get("/v1/tasks").status_code}
        return seen

    assert both() == {"old": {200}, "new": {200}}
    ApiKey.objects.update(previous_until="2020-01-01T00:00:00Z")
    assert both() == {"old": {401}, "new": {200}}
    ApiKey.objects.update(previous_until="2100-01-01T00:00:00Z")
    assert credentials.revoke(rolled.api_key)
    assert both() == {"old": {401}, "new": {401}}
    assert not credentials.revoke(rolled.api_key)
    assert key(rolled.account)[0].previous_digest is None
