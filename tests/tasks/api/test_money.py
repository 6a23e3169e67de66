"""What an account sees of its money: balances, the statement, usage."""

import datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import ledger, statements
from billing.models import Account
from tasks import lifecycle, runner
from tasks.api.views import usage
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def to():
    return builders.deployment("priced", prices=(("task", "1"), ("characters", "2", 1000)))


def done(consumer, to, **usage_):
    """A task that has ended, with this usage."""
    made = consumer.create(to, input={"usage": usage_}).json()
    runner.run_next(to.queue)
    return made["task_id"]


def sum_of(rows, name="billed_amount_credits"):
    return sum(Decimal(row[name]) for row in rows)


class TestAccount:
    def test_it_shows_balances_limits_and_no_secret(self, to):
        consumer = Consumer(builders.account("10", credit_limit="2.5", monthly_cap="7", pending_limit=9))
        done(consumer, to, characters=500)
        consumer.create(to)

        answer = consumer.get("/v1/account")

        shown = answer.json()
        assert shown.pop("created_at").endswith("Z")
        assert shown == {
            "object": "account",
            "name": "Acme",
            "granted_credits": "10.0000",
            "available_credits": "7.0000",
            "held_credits": "1.0000",
            "charged_credits": "2.0000",
            "credit_limit_credits": "2.5000",
            "monthly_cap_credits": "7.0000",
            "month_spent_credits": "3.0000",
            "low_balance_threshold_credits": None,
            "pending_tasks": 1,
            "pending_tasks_limit": 9,
            "running_tasks": 0,
            "running_tasks_limit": 10,
            "requests_per_minute": 600,
        }
        assert b"whsec_" not in answer.content
        assert consumer.account.callback_secret.encode() not in answer.content

    def test_what_another_month_spent_does_not_count(self, to):
        consumer = Consumer()
        consumer.create(to)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE billing_account DISABLE TRIGGER USER")
            cursor.execute("UPDATE billing_account SET month = month - interval '1 month'")
            cursor.execute("ALTER TABLE billing_account ENABLE TRIGGER USER")

        assert consumer.get("/v1/account").json()["month_spent_credits"] == "0.0000"

    @pytest.mark.parametrize("path", ["/v1/account", "/v1/account/transfers", "/v1/usage"])
    def test_money_takes_its_own_scope(self, path):
        account = builders.account()
        worker, accountant = Consumer(account, scopes=["tasks:read", "tasks:write"]), Consumer(account)

        refused = worker.get(path)

        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")
        assert "billing:read" in refused.json()["error"]["message"]
        assert accountant.get(path).status_code == 200


class TestTransfers:
    def test_the_statement_explains_every_balance(self, to):
        consumer = Consumer(builders.account("10"))
        task_id = done(consumer, to, characters=500)
        task = Task.objects.get()
        line = task.account.usage_lines.get(meter="characters")
        lifecycle.refund(task.pk, Decimal("0.4"), line=line, key="r", reason="a private word", by="operator:alice")

        answer = consumer.get("/v1/account/transfers")

        shown = answer.json()["data"]
        assert [(row["seq"], row["kind"], row["amount_credits"]) for row in shown] == [
            (4, "refund", "0.4000"),
            (3, "capture", "2.0000"),
            (2, "hold", "2.0000"),
            (1, "grant", "10.0000"),
        ]
        assert [row["task_id"] for row in shown] == [task_id, task_id, task_id, None]
        assert [row["meter"] for row in shown] == ["characters", None, None, None]
        assert [row["actor"] for row in shown] == ["operator", "system", "system", "system"]
        account = consumer.get("/v1/account").json()
        buckets = ("granted_credits", "available_credits", "held_credits", "charged_credits")
        assert {name: shown[0][name] for name in buckets} == {name: account[name] for name in buckets}
        assert b"private" not in answer.content
        assert b"alice" not in answer.content

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_pages_hold_every_transfer_once_while_new_ones_arrive(self, order):
        consumer = Consumer(builders.account("1"))
        for _ in range(6):
            self.grant(consumer)

        seen, cursor = [], ""
        while cursor is not None:
            tail = f"&cursor={cursor}" if cursor else ""
            page = consumer.get(f"/v1/account/transfers?limit=3&order={order}{tail}").json()
            seen += [row["seq"] for row in page["data"]]
            cursor = page["next_cursor"]
            if len(seen) < 7:
                self.grant(consumer)

        assert seen == ([7, 6, 5, 4, 3, 2, 1] if order == "desc" else [1, 2, 3, 4, 5, 6, 7, 8, 9])
        assert page["has_more"] is False

    def test_filters_narrow_it(self, to):
        consumer = Consumer(builders.account("10"))
        first, second = done(consumer, to), done(consumer, to)
        hour = datetime.timedelta(hours=1)
        ago, ahead = ((timezone.now() + step).isoformat().replace("+", "%2B") for step in (-hour, hour))

        def seqs(query):
            return [row["seq"] for row in consumer.get(f"/v1/account/transfers?{query}").json()["data"]]

        assert seqs(f"task={first}") == [3, 2]
        assert seqs(f"task={second}&kind=capture") == [5]
        assert seqs("kind=grant,hold") == [4, 2, 1]
        assert seqs(f"created_after={ahead}") == seqs(f"created_before={ago}") == seqs("task=task_nonsense") == []
        assert len(seqs(f"created_after={ago}&created_before={ahead}")) == 5

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("kind=gift", "/kind"),
            ("huh=1", "/huh"),
            ("limit=0", "/limit"),
            ("order=asc&order=desc", "/order"),
            ("task=", "/task"),
        ],
    )
    def test_a_parameter_that_makes_no_sense_is_refused(self, query, param):
        answer = Consumer().get(f"/v1/account/transfers?{query}")

        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)

    def test_a_cursor_of_another_list_is_refused(self, to):
        consumer = Consumer()
        for _ in range(2):
            consumer.create(to)
        tasks, transfers = (consumer.get(f"/v1/{of}?limit=1").json() for of in ("tasks", "account/transfers"))

        crossed = [
            consumer.get(f"/v1/account/transfers?limit=1&cursor={tasks['next_cursor']}"),
            consumer.get(f"/v1/tasks?limit=1&cursor={transfers['next_cursor']}"),
        ]

        assert [answer.json()["error"]["code"] for answer in crossed] == ["invalid_cursor"] * 2

    @staticmethod
    def grant(consumer):
        ledger.grant(consumer.account.pk, Decimal(1), key=str(uuid4()), reason="more", actor="operator:x")


class TestUsage:
    def test_the_rows_add_up_to_what_was_charged_however_they_are_grouped(self, to):
        consumer = Consumer()
        second = Consumer(consumer.account)
        other = builders.deployment("other", prices=(("task", "3"),))
        for of, where, characters in ((consumer, to, 500), (second, to, 250), (consumer, other, 0)):
            done(of, where, characters=characters)

        answers = {
            by: consumer.get(f"/v1/usage?group_by={by}").json()["data"]
            for by in ("day", "model", "meter", "key", "day,model,meter,key")
        }

        charged = Account.objects.get(pk=consumer.account.pk).charged
        assert {sum_of(rows) for rows in answers.values()} == {charged} == {Decimal("6.5")}
        assert [(row["model"], row["tasks"]) for row in answers["model"]] == [("other", 1), ("priced", 2)]
        assert [(row["meter"], row["quantity"], row["unit"]) for row in answers["meter"]] == [
            ("characters", "750", "character"),
            ("task", "3", "task"),
        ]
        assert {row["key"] for row in answers["key"]} == {consumer.api_key.prefix, second.api_key.prefix}
        assert answers["day"] == [
            {
                "object": "usage",
                "day": timezone.now().date().isoformat(),
                **dict.fromkeys(("model", "meter", "key", "unit", "quantity")),
                "listed_amount_credits": "6.5000",
                "billed_amount_credits": "6.5000",
                "tasks": 3,
            }
        ]
        assert len(answers["day,model,meter,key"]) == 5

    def test_days_are_whole_utc_days_both_included(self, to):
        consumer = Consumer()
        done(consumer, to)
        today = timezone.now().date()
        yesterday, tomorrow = today - datetime.timedelta(days=1), today + datetime.timedelta(days=1)

        def tasks(query):
            return [row["tasks"] for row in consumer.get(f"/v1/usage?{query}").json()["data"]]

        assert tasks(f"from={today}&to={today}") == tasks(f"from={yesterday}") == tasks("") == [1]
        assert tasks(f"to={yesterday}") == tasks(f"from={tomorrow}&to={tomorrow}") == []

    def test_it_is_one_statement_and_sees_no_other_account(self, to, monkeypatch):
        stranger, consumer = Consumer(), Consumer()
        done(stranger, to)
        asked, plain = [], statements._cursor
        monkeypatch.setattr(statements, "_cursor", lambda: asked.append(1) or plain())

        with CaptureQueriesContext(connection) as queries:
            answer = consumer.get("/v1/usage?group_by=day,model,meter,key")

        assert answer.json()["data"] == []
        assert (len(asked), len(queries)) == (2, 0)  # the caller's, and the one

    def test_more_rows_than_anybody_reads_are_refused(self, to, monkeypatch):
        monkeypatch.setattr(usage, "MOST_ROWS", 1)
        consumer = Consumer()
        done(consumer, to, characters=1)

        answers = [consumer.get(f"/v1/usage?group_by={by}") for by in ("day", "meter")]

        assert [answer.status_code for answer in answers] == [200, 422]
        assert answers[1].json()["error"]["param"] == "/group_by"

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("group_by=colour", "/group_by"),
            ("group_by=", "/group_by"),
            ("from=2026-13-01", "/from"),
            ("from=20260101", "/from"),
            ("to=1999-12-31", "/to"),
            ("from=2026-02-01&to=2026-01-01", "/from"),
            ("from=2026-01-01&to=2026-04-03", "/from"),
            ("day=2026-01-01", "/day"),
            ("to=2026-01-01&to=2026-01-02", "/to"),
            ("to=%00", "/to"),
        ],
    )
    def test_a_parameter_that_makes_no_sense_is_refused(self, query, param):
        answer = Consumer().get(f"/v1/usage?{query}")

        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
