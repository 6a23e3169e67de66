"""The real verbs on the real database, step by step beside the book of `book.py`; any of them may die on the way."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from billing import audit, ledger, pricing
from billing.exceptions import (
    InsufficientBalance,
    KeyReused,
    NothingCharged,
    RefundTooLarge,
    Refusal,
    SpendCapReached,
)
from billing.models import Account, Price, Transfer, UsageLine
from tasks import lifecycle
from tasks.exceptions import IdempotencyKeyReused, LeaseLost, TaskNotFinal, TooManyPendingTasks
from tasks.models import Run, Task
from tasks.statuses import ErrorCode, Resolved
from tests.billing.builders import run_sql
from tests.builders import account, deployment, request
from tests.money.book import ORDER, Job, Tag, Wallet, ceiling
from tests.money.crashes import MOMENTS, Crash, Died

METERS = ("input_tokens", "output_tokens", "characters")
OFFERS = {
    "flat": [("task", "1.5")],
    "meters": [
        ("task", "0.25"), ("input_tokens", "0.3333333333", 1000), ("output_tokens", "0.00005"), ("characters", "1", 3),
    ],
    "streamed": [("task", "2"), ("characters", "0.5")],
    "free": [],
}  # fmt: skip
PRICES = st.sampled_from(["0", "0.00005", "0.00015", "0.5", "1.2345678901", "0.3333333333"])
QUANTITIES = st.one_of(st.integers(0, 9).map(lambda n: n * 10**6), st.integers(0, 4_000_000))
USAGE = st.dictionaries(st.sampled_from(METERS), QUANTITIES, max_size=3)
CREDITS = st.one_of(st.integers(1, 200_000), st.sampled_from([1, 10_000, 15_000, 25_000]))
CRASH = st.one_of(st.none(), st.none(), st.tuples(st.sampled_from(MOMENTS), st.integers(1, 4)))
WHICH = st.integers(0, 10**6)
LOST = {"code": ErrorCode.WORKER_LOST, "message": "", "resolved": Resolved.CLAIM_EXPIRED}
FREE_ENDS = [ErrorCode.CAPABILITY_ERROR, ErrorCode.UPSTREAM_ERROR, ErrorCode.INVALID_INPUT]
ENDS = [*FREE_ENDS, ErrorCode.TIMEOUT, ErrorCode.DEADLINE_EXCEEDED]
FORETOLD = {
    refusal.__name__: refusal
    for refusal in (
        IdempotencyKeyReused, InsufficientBalance, NothingCharged, RefundTooLarge, SpendCapReached, TaskNotFinal,
        TooManyPendingTasks,
    )
}  # fmt: skip


def credits_(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-4)


def quantity(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-6)


def written(usage: dict[str, int]) -> dict[str, str]:
    return {meter: f"{quantity(used):f}" for meter, used in usage.items()}


THEN = """
SELECT t.id, t.status, t.attempt, t.retries_left, t.quoted, t.waived, coalesce(c.held, 0), coalesce(c.charged, 0),
    coalesce(c.refunded, 0), t.output #>> '{}', t.warnings <> '[]'
FROM tasks_task t LEFT JOIN billing_charge c ON c.task_id = t.id WHERE t.queue = %s
"""
# All that these accounts did was a month earlier. Nobody may do that, so the guards are off meanwhile.
EARLIER = {
    "billing_account": "month = month - interval '1 month' WHERE id",
    "billing_charge": "created_at = created_at - interval '1 month' WHERE account_id",
    "billing_transfer": "created_at = created_at - interval '1 month' WHERE account_id",
}


class MoneyMachine(RuleBasedStateMachine):
    """Two accounts and the tasks of one queue. At the end the audit finds nothing in all there is."""

    killer: psycopg.Connection
    seen: Counter[str] = Counter()

    @initialize()
    def open(self) -> None:
        self.month = this_month()
        self.queue = f"q{uuid4().hex}"
        self.wallets: dict[UUID, Wallet] = {}
        self.jobs: dict[UUID, Job] = {}
        self.asked: dict[UUID, Any] = {}
        self.claims: dict[UUID, lifecycle.Claim | None] = {}
        self.stale: list[lifecycle.Claim] = []
        self.refunds: list[tuple[Callable[..., Transfer], Transfer]] = []
        self.deployments, self.tags = {}, {}
        for amount in (200_000, 30_000):
            self.wallets[account(credits_(amount)).pk] = wallet = Wallet()
            wallet.given(amount)
        for name, prices in OFFERS.items():
            self.deployments[name] = deployment(
                prices=prices, queue=self.queue, bills_partial_output=name == "streamed", max_retries=1
            )
            self.tags[name] = {
                meter: Tag(meter, int(Decimal(price).scaleb(10)), *(size or [1])) for meter, price, *size in prices
            }

    def act(
        self,
        verb: Callable[[], Any],
        done: Callable[[Any], None],
        *,
        crash: tuple[str, int] | None = None,
        refusal: str | None = None,
        again: Callable[[], Any] | None = None,
    ) -> None:
        """Do it. When it dies it did nothing, and is done; or it did all, and `again` hears so and adds nothing."""
        with pytest.raises(FORETOLD[refusal]) if refusal else nullcontext():
            done(self._heard(verb, crash=crash, again=again or verb))
        self.seen["done" if refusal is None else refusal] += 1

    def _heard(self, verb, *, crash, again):
        """What the verb answers with, or, when that was lost with the session, what asking again does."""
        if crash is None:
            return verb()
        death = Crash(*crash, self.killer)
        try:
            return death.attempt(verb)
        except Died:
            self.seen[f"died {death.moment}{', done' if death.committed else ''}"] += 1
            if death.committed:
                return again()
            self.agrees()
            return verb()

    def pick(self, which: int, fits: Callable[[Job], bool] = lambda job: True) -> UUID | None:
        found = [task_id for task_id, job in self.jobs.items() if fits(job)]
        return found[which % len(found)] if found else None

    def some(self, fits: Callable[[Job], bool] = lambda job: True) -> bool:
        return any(map(fits, self.jobs.values()))

    def account(self, which: int) -> UUID:
        return list(self.wallets)[which % len(self.wallets)]

    # Accounts and prices.

    @rule(which=WHICH, amount=CREDITS, crash=CRASH)
    def grant(self, which, amount, crash):
        to, key = self.account(which), str(uuid4())
        self.act(
            lambda: ledger.grant(to, credits_(amount), key=key, reason="a gift", actor="operator:ann"),
            lambda _: self.wallets[to].given(amount),
            crash=crash,
        )

    @rule(which=WHICH, amount=CREDITS, sign=st.sampled_from([-1, 1]), crash=CRASH)
    def adjust(self, which, amount, sign, crash):
        to, key = self.account(which), str(uuid4())
        self.act(
            lambda: ledger.adjust(to, credits_(sign * amount), key=key, reason="a mistake", actor="operator:ann"),
            lambda _: self.wallets[to].given(sign * amount),
            crash=crash,
            refusal=self.wallets[to].refuses_adjustment(sign * amount),
        )

    @rule(which=WHICH, limit=st.sampled_from([0, 20_000, 100_000]))
    def credit_limit(self, which, limit):
        self._limit(which, credit_limit=limit)

    @rule(which=WHICH, cap=st.sampled_from([None, None, 0, 40_000, 100_000]))
    def monthly_cap(self, which, cap):
        self._limit(which, cap=cap)

    @rule(which=WHICH, pending=st.sampled_from([0, 2, 1000]), running=st.sampled_from([0, 1, 10, 10]))
    def limits(self, which, pending, running):
        self._limit(which, pending_limit=pending, running_limit=running)

    def _limit(self, which, **limits):
        to = self.account(which)
        for name, value in limits.items():
            setattr(self.wallets[to], name, value)
            amount = value if value is None or name.endswith("ing_limit") else credits_(value)
            Account.objects.filter(pk=to).update(**{"monthly_cap" if name == "cap" else name: amount})

    @rule(name=st.sampled_from(["flat", "meters", "streamed"]), which=WHICH, price=PRICES)
    def reprice(self, name, which, price):
        tags = self.tags[name]
        old = tags[list(tags)[which % len(tags)]]
        unit = pricing.UNITS[old.meter]
        card = self.deployments[name].rate_card
        Price.objects.create(rate_card=card, meter=old.meter, unit=unit, unit_size=old.size, credits=Decimal(price))
        tags[old.meter] = Tag(old.meter, int(Decimal(price).scaleb(10)), old.size)

    @rule()
    def month_passes(self):
        with transaction.atomic(), connection.cursor() as cursor:
            for table, change in EARLIER.items():
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
                cursor.execute(f"UPDATE {table} SET {change} = ANY(%s)", [list(self.wallets)])
                cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
        for wallet in self.wallets.values():
            wallet.last_month = True
        for job in self.jobs.values():
            job.of_this_month = False

    # A task's life.

    @rule(which=WHICH, name=st.sampled_from(sorted(OFFERS)), bound=USAGE, crash=CRASH)
    def submit(self, which, name, bound, crash):
        of = self.account(which)
        asked = request(
            Account(pk=of),
            self.deployments[name],
            input={"bound": written(bound)},
            idempotency_key=str(uuid4()),
            fingerprint="f",
        )
        cost = ceiling(bound, self._tags(name))
        self.act(
            lambda: lifecycle.submit(asked),
            lambda made: self._begin(made.task_id, of, name, bound, cost, asked=asked),
            crash=crash,
            refusal=self.wallets[of].refuses_hold(cost),
        )

    def _tags(self, name):
        return tuple(self.tags[name][meter] for meter in ORDER if meter in self.tags[name])

    def _begin(self, task_id, of, name, bound, cost, *, asked=None, root=None, waived=False):
        assert task_id not in self.jobs
        wallet, tags = self.wallets[of], self._tags(name)
        wallet.hold(cost)
        self.jobs[task_id] = Job(
            task_id, wallet, of, name, bound, tags, name == "streamed", cost, root or task_id, waived
        )
        self.asked[task_id] = asked

    @precondition(lambda self: self.some())
    @rule(which=WHICH, other=st.booleans())
    def submit_again(self, which, other):
        task_id = self.pick(which)
        if task_id and (asked := self.asked[task_id]):
            asked = replace(asked, fingerprint="g") if other else asked
            self.act(
                lambda: lifecycle.submit(asked),
                lambda made: self._same(made, task_id),
                refusal="IdempotencyKeyReused" if other else None,
            )

    def _same(self, made, task_id):
        assert (made.task_id, made.replayed) == (task_id, True)

    @precondition(lambda self: self.some(lambda job: job.status == "queued"))
    @rule(crash=CRASH)
    def claim(self, crash):
        eligible = [i for i, job in self.jobs.items() if job.status == "queued" and job.wallet.has_room]
        self.act(
            lambda: lifecycle.claim(self.queue, worker="w"),
            lambda claimed: self._claimed(claimed, eligible),
            crash=crash,
            again=self._claimed_unheard,
        )

    def _claimed(self, claimed, eligible):
        assert (claimed is None) == (not eligible)
        if claimed:
            task_id = getattr(claimed, "task_id", claimed)
            assert task_id in eligible
            self.jobs[task_id].claim()
            self.claims[task_id] = None if task_id == claimed else claimed

    def _claimed_unheard(self):
        """The task that a worker took before it could say so."""
        running = Task.objects.filter(queue=self.queue, status="running").values_list("pk", flat=True)
        new = [task_id for task_id in running if self.jobs[task_id].status == "queued"]
        return new[0] if new else None

    def worked_on(self, which) -> UUID | None:
        """A running task whose worker knows that it is."""
        return self.pick(which, lambda job: job.status == "running" and self.claims[job.id] is not None)

    def _lost(self, task_id):
        if claimed := self.claims.pop(task_id, None):
            self.stale.append(claimed)

    @precondition(lambda self: self.worked_on(0))
    @rule(which=WHICH, text=st.sampled_from(["a", "bc"]), usage=USAGE, twice=st.booleans())
    def publish(self, which, text, usage, twice):
        if task_id := self.worked_on(which):
            job, used = self.jobs[task_id], {meter: quantity(amount) for meter, amount in usage.items()}
            for _ in range(1 + twice):
                lifecycle.publish(self.claims[task_id], text=text, offset=len(job.text), usage=used)
            job.stream(text, usage)

    @precondition(lambda self: self.worked_on(0))
    @rule(which=WHICH, usage=st.one_of(st.none(), USAGE), crash=CRASH)
    def succeed(self, which, usage, crash):
        if task_id := self.worked_on(which):
            used = self.jobs[task_id].bound if usage is None else usage
            self._work_ends(task_id, self._success(used), lambda job: job.succeed(used), crash)

    def _success(self, usage):
        used = {meter: quantity(amount) for meter, amount in usage.items()}
        return lambda claimed: lifecycle.succeed(claimed, output="done", usage=used, warnings=[])

    @precondition(lambda self: self.worked_on(0))
    @rule(which=WHICH, code=st.sampled_from(ENDS), crash=CRASH)
    def fail(self, which, code, crash):
        if task_id := self.worked_on(which):
            self._work_ends(
                task_id,
                lambda claimed: lifecycle.fail(claimed, code=code, message="No."),
                lambda job: job.stop("failed", bills=code not in FREE_ENDS),
                crash,
            )

    @precondition(lambda self: self.worked_on(0))
    @rule(which=WHICH, crash=CRASH)
    def retry(self, which, crash):
        if task_id := self.worked_on(which):
            self._work_ends(task_id, lambda claimed: lifecycle.retry(claimed, **LOST), Job.tried, crash)

    @precondition(lambda self: self.worked_on(0))
    @rule(which=WHICH, crash=CRASH)
    def give_back(self, which, crash):
        if task_id := self.worked_on(which):
            self._work_ends(task_id, lifecycle.give_back, Job.given_back, crash)

    def _work_ends(self, task_id, verb, done, crash):
        claimed, job = self.claims[task_id], self.jobs[task_id]
        self.act(lambda: verb(claimed), lambda _: done(job), crash=crash, again=lambda: self._too_late(verb, claimed))
        self._lost(task_id)

    def _too_late(self, verb, claimed):
        with pytest.raises(LeaseLost):
            verb(claimed)

    @precondition(lambda self: self.stale)
    @rule(which=WHICH, usage=USAGE)
    def speak_after_the_end(self, which, usage):
        if self.stale:
            claimed = self.stale[which % len(self.stale)]
            self._too_late(self._success(usage), claimed)
            self._too_late(lambda c: lifecycle.fail(c, code=ErrorCode.TIMEOUT, message=""), claimed)
            self._too_late(lambda c: lifecycle.retry(c, **LOST), claimed)
            self._too_late(lifecycle.give_back, claimed)
            self._too_late(lambda c: lifecycle.publish(c, text="x", offset=0, usage={}), claimed)

    @precondition(lambda self: self.some())
    @rule(which=WHICH, crash=CRASH)
    def cancel(self, which, crash):
        if task_id := self.pick(which):
            self._ends(task_id, lambda: lifecycle.cancel(task_id, by="api_key:x"), "canceled", crash, bills=True)

    @precondition(lambda self: self.some(lambda job: not job.final))
    @rule(which=WHICH, crash=CRASH)
    def expire(self, which, crash):
        if task_id := self.pick(which, lambda job: not job.final):
            Task.objects.filter(pk=task_id).update(deadline=F("created_at"))
            bills = self.jobs[task_id].started
            self._ends(task_id, lambda: lifecycle.expire(task_id), "failed", crash, bills=bills)

    def _ends(self, task_id, verb, to, crash, *, bills):
        job = self.jobs[task_id]
        ends = not job.final

        def done(answer):
            assert answer is ends
            if ends:
                job.stop(to, bills=bills)

        def again():
            assert verb() is False
            return ends

        self.act(verb, done, crash=crash, again=again)
        self._lost(task_id)

    @precondition(lambda self: self.some(lambda job: job.status == "running"))
    @rule(which=WHICH, crash=CRASH)
    def give_up(self, which, crash):
        if task_id := self.pick(which, lambda job: job.status == "running"):
            Run.objects.filter(task=task_id, status="running").update(lease_expires_at=F("started_at"))
            job = self.jobs[task_id]
            self.act(
                lambda: lifecycle.give_up(task_id),
                lambda _: job.tried(),
                crash=crash,
                again=lambda: not lifecycle.give_up(task_id),
            )
            self._lost(task_id)

    @precondition(lambda self: self.some())
    @rule(which=WHICH, free=st.booleans(), crash=CRASH)
    def rerun(self, which, free, crash):
        if task_id := self.pick(which):
            job, key = self.jobs[task_id], {"idempotency_key": str(uuid4()), "fingerprint": "f"}
            cost = 0 if free else ceiling(job.bound, self._tags(job.offer))
            verb = partial(lifecycle.rerun_free, task_id, by="operator:ann", reason="ours", **key)
            if not free:
                verb = partial(lifecycle.rerun, task_id, account_id=job.account, api_key_id=None, actor="x", **key)
            busy = not job.final or any(not other.final for other in self.jobs.values() if other.root == job.root)
            self.act(
                verb,
                lambda made: self._begin(
                    made.task_id, job.account, job.offer, job.bound, cost, root=job.root, waived=free
                ),
                crash=crash,
                refusal="TaskNotFinal" if busy else job.wallet.refuses_hold(cost),
            )

    # After the end.

    @precondition(lambda self: self.some())
    @rule(which=WHICH, amount=st.one_of(st.none(), CREDITS), line=st.one_of(st.none(), WHICH), crash=CRASH)
    def refund(self, which, amount, line, crash):
        if task_id := self.pick(which):
            self._refund(task_id, amount, line, crash)

    @precondition(lambda self: self.some(lambda job: job.charged > job.refunded))
    @rule(which=WHICH, part=st.integers(1, 4), line=st.one_of(st.none(), WHICH), crash=CRASH)
    def refund_what_there_is(self, which, part, line, crash):
        if task_id := self.pick(which, lambda job: job.charged > job.refunded):
            left = self.jobs[task_id].charged - self.jobs[task_id].refunded
            self._refund(task_id, max(1, left // part), line, crash)

    def _refund(self, task_id, amount, line, crash):
        job, row, mine = self.jobs[task_id], None, None
        if line is not None and job.lines:
            mine = job.lines[line % len(job.lines)]
            row = UsageLine.objects.get(task_id=task_id, meter=mine.meter)
        wanted = None if amount is None else credits_(amount)
        verb = partial(lifecycle.refund, task_id, line=row, key=str(uuid4()), reason="sorry", by="operator:ann")

        def done(given):
            assert given.amount == credits_(job.refund(amount, mine))
            self.refunds.append((verb, given))

        self.act(lambda: verb(wanted), done, crash=crash, refusal=job.refuses_refund(amount, mine))

    @precondition(lambda self: self.refunds)
    @rule(which=WHICH)
    def refund_with_a_key_that_is_used(self, which):
        if self.refunds:
            verb, given = self.refunds[which % len(self.refunds)]
            assert verb(given.amount).pk == verb(None).pk == given.pk
            with pytest.raises(KeyReused):
                verb(given.amount + Decimal("0.0001"))

    @precondition(lambda self: self.some(lambda job: job.final))
    @rule(which=WHICH, charged=CREDITS, listed_=st.booleans())
    def settle_twice(self, which, charged, listed_):
        if task_id := self.pick(which, lambda job: job.final):
            job, lines = self.jobs[task_id], ()
            if listed_ and job.tags:
                rate = pricing.Rate(**Task.objects.get(pk=task_id).quote["rates"][0])
                lines = (pricing.Line(rate, Decimal(1), credits_(charged), credits_(charged)),)
            bill = pricing.Bill(lines, credits_(charged), cut=False)
            with pytest.raises((DatabaseError, Refusal)):
                ledger.settle(job.account, bill, task_id=task_id, held=credits_(charged), credits_per_usd=Decimal(1000))

    # What must be so after each step.

    @invariant()
    def agrees(self):
        assume(this_month() == self.month)
        accounts = Account.objects.filter(pk__in=self.wallets).values_list(
            "pk", "granted", "available", "held", "charged", "month_spent", "account_seq", "pending", "running"
        )
        assert {pk: (*map(whole, amounts[:5]), *amounts[5:]) for pk, *amounts in accounts} == {
            pk: (w.granted, w.available, w.held, w.charged, w.spent, w.transfers, w.pending, w.running)
            for pk, w in self.wallets.items()
        }
        assert self._tasks() == {
            pk: (j.status, j.attempt, j.retries, j.ceiling, j.waived, j.held, j.charged, j.refunded, j.output, j.cut)
            for pk, j in self.jobs.items()
        }
        assert self._lines() == {
            pk: [(n, x.meter, x.quantity, x.listed, x.billed) for n, x in enumerate(j.lines)]
            for pk, j in self.jobs.items()
            if j.lines
        }

    def _tasks(self):
        with connection.cursor() as cursor:
            cursor.execute(THEN, [self.queue])
            return {
                pk: (status, attempt, retries, whole(quoted), waived, *map(whole, amounts), output, warned)
                for pk, status, attempt, retries, quoted, waived, *amounts, output, warned in cursor.fetchall()
            }

    def _lines(self):
        found: dict[UUID, list[tuple]] = {}
        for line in UsageLine.objects.filter(task_id__in=self.jobs).order_by("task_id", "position"):
            row = (line.position, line.meter, int(line.quantity.scaleb(6)), whole(line.listed_amount))
            found.setdefault(line.task_id, []).append((*row, whole(line.billed_amount)))
        return found

    def teardown(self):
        assert audit.run().broken == []


def this_month() -> Any:
    return run_sql("SELECT date_trunc('month', now() AT TIME ZONE 'utc')")


def whole(amount: Decimal) -> int:
    """Credits as a whole number of their smallest part; there is nothing smaller."""
    assert amount.scaleb(4) == int(amount.scaleb(4))
    return int(amount.scaleb(4))
