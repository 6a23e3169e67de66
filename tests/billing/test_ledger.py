"""The ledger against a model of it in plain arithmetic, over any sequence of verbs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing import audit, ledger
from billing.exceptions import InsufficientBalance, KeyReused, NothingCharged, RefundTooLarge, Refusal, SpendCapReached
from billing.models import Account, Charge, Transfer, UsageLine
from billing.pricing import bill, waived
from tests.billing.builders import EMPTY, WHY, charge, charged, held, hold, line_ids, rates, release, settle
from tests.builders import account, buckets

pytestmark = pytest.mark.django_db


@dataclass
class Line:
    billed: Decimal
    refunded: Decimal = Decimal(0)


@dataclass
class Task:
    """What a task should hold, cost and have got back."""

    id: UUID
    held: Decimal
    lines: list[Line] = field(default_factory=list)
    refunded: Decimal = Decimal(0)
    settled: bool = False

    @property
    def charged(self) -> Decimal:
        return sum((line.billed for line in self.lines), Decimal(0))


@dataclass
class Books:
    """An account as it should be: what was given, and its tasks."""

    granted: Decimal = Decimal(0)
    limit: Decimal = Decimal(0)
    tasks: list[Task] = field(default_factory=list)

    @property
    def held(self) -> Decimal:
        return sum((task.held for task in self.tasks), Decimal(0))

    @property
    def charged(self) -> Decimal:
        return sum((task.charged - task.refunded for task in self.tasks), Decimal(0))

    @property
    def available(self) -> Decimal:
        return self.granted - self.held - self.charged

    def covers(self, amount: Decimal) -> bool:
        return self.available - amount >= -self.limit


class Both:
    """Each verb done to the ledger and to the model; they are to agree on the outcome, then on every figure."""

    def __init__(self) -> None:
        self.account = account("0")
        self.books = Books()
        self.rates = rates(("characters", "0.0001"), ("image_count", "0.0001"))
        self.last: Callable[[], Transfer] | None = None

    def do(self, act: Callable[[], Transfer], *, refused: type[Refusal] | None) -> bool:
        """Whether it was done, after seeing that it was refused exactly when the model says so."""
        outcome = None
        try:
            act()
        except Refusal as refusal:
            outcome = type(refusal)
        assert outcome is refused
        self.last = self.last if refused else act
        return refused is None

    def grant(self, amount: Decimal, which: int) -> None:
        key = str(uuid4())
        if self.do(lambda: ledger.grant(self.account.pk, amount, key=key, **WHY), refused=None):
            self.books.granted += amount

    def take(self, amount: Decimal, which: int) -> None:
        key, refused = str(uuid4()), None if self.books.covers(amount) else InsufficientBalance
        if self.do(lambda: ledger.adjust(self.account.pk, -amount, key=key, **WHY), refused=refused):
            self.books.granted -= amount

    def hold(self, amount: Decimal, which: int) -> None:
        task_id, refused = uuid4(), None if self.books.covers(amount) else InsufficientBalance
        if self.do(lambda: hold(self.account.pk, amount, task_id=task_id), refused=refused):
            self.books.tasks.append(Task(task_id, amount))

    def settle(self, amount: Decimal, which: int) -> None:
        if not (open_ := [task for task in self.books.tasks if not task.settled]):
            return
        task = open_[which % len(open_)]
        usage = {"characters": amount * 10_000, "image_count": Decimal(which * 1000)}
        made = bill(usage, self.rates, at_most=task.held)
        settle(self.account, task.id, made, held=str(task.held))
        task.lines, task.held, task.settled = [Line(line.billed) for line in made.lines], Decimal(0), True

    def release(self, amount: Decimal, which: int) -> None:
        if open_ := [task for task in self.books.tasks if not task.settled]:
            task = open_[which % len(open_)]
            settle(self.account, task.id, EMPTY, held=str(task.held))
            task.held, task.settled = Decimal(0), True

    def refund(self, amount: Decimal, which: int) -> None:
        task = self.books.tasks[which % len(self.books.tasks)] if self.books.tasks else Task(uuid4(), Decimal(0))
        refused = RefundTooLarge if amount > task.charged - task.refunded else None
        refused = refused if task in self.books.tasks else NothingCharged
        key = str(uuid4())
        if self.do(lambda: ledger.refund(self.account.pk, amount, task_id=task.id, key=key, **WHY), refused=refused):
            task.refunded += amount

    def refund_all(self, amount: Decimal, which: int) -> None:
        if owing := [task for task in self.books.tasks if task.charged > task.refunded]:
            task = owing[which % len(owing)]
            self.refund(task.charged - task.refunded, self.books.tasks.index(task))

    def refund_line(self, amount: Decimal, which: int) -> None:
        if not (lined := [task for task in self.books.tasks if task.lines]):
            return
        task = lined[which % len(lined)]
        position = which % len(task.lines)
        line, line_id, key = task.lines[position], line_ids(task.id)[position], str(uuid4())
        room = min(task.charged - task.refunded, line.billed - line.refunded)
        refused = RefundTooLarge if amount > room else None

        def act() -> Transfer:
            return ledger.refund(self.account.pk, amount, task_id=task.id, line_id=line_id, key=key, **WHY)

        if self.do(act, refused=refused):
            task.refunded += amount
            line.refunded += amount

    def repeat(self, amount: Decimal, which: int) -> None:
        if self.last:
            assert self.last() == self.last()

    def credit_limit(self, amount: Decimal, which: int) -> None:
        Account.objects.filter(pk=self.account.pk).update(credit_limit=amount)
        self.books.limit = amount

    def agree(self) -> None:
        row, books = Account.objects.get(pk=self.account.pk), self.books
        assert (row.granted, row.available) == (books.granted, books.available)
        assert (row.held, row.charged) == (books.held, books.charged)
        assert row.account_seq == Transfer.objects.filter(account=row).count()
        rows = Charge.objects.filter(account=row).values_list("task_id", "held", "charged", "refunded")
        assert set(rows) == {(task.id, task.held, task.charged, task.refunded) for task in books.tasks}


VERBS = ("grant", "take", "hold", "settle", "release", "refund", "refund_all", "refund_line", "repeat", "credit_limit")
steps = st.tuples(st.sampled_from(VERBS), st.decimals(Decimal("0.0001"), 20, places=4), st.integers(0, 5))
OPENING = [("grant", Decimal(100), 0), ("hold", Decimal(9), 0), ("settle", Decimal(5), 1), ("hold", Decimal(3), 0)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=12), st.booleans())
@example([("refund", Decimal(6), 0), ("repeat", Decimal(1), 0), ("refund_line", Decimal(1), 0)], True)
@example([("refund_line", Decimal(5), 0), ("refund_line", Decimal("0.0001"), 0), ("refund_all", Decimal(1), 0)], True)
@example([("credit_limit", Decimal(5), 0), ("hold", Decimal(5), 0), ("repeat", Decimal(1), 0)], False)
def test_any_sequence_of_verbs_keeps_the_books(sequence, opened):
    with transaction.atomic():
        both = Both()

        for verb, amount, which in (OPENING if opened else []) + sequence:
            getattr(both, verb)(amount, which)
            both.agree()

        connection.check_constraints()
        assert audit.examine().broken == []
        transaction.set_rollback(True)


def test_a_task_is_held_settled_and_refunded():
    mine = account("10")
    task_id = charged(mine, "2", "1.5", of="5")

    ledger.refund(mine.pk, Decimal("0.5"), task_id=task_id, key="click", **WHY)

    assert buckets(mine) == {"available": Decimal(7), "held": 0, "charged": 3}
    assert list(mine.transfers.order_by("account_seq").values_list("kind", "amount")) == [
        ("grant", 10),
        ("hold", 5),
        ("capture", Decimal("3.5")),
        ("release", Decimal("1.5")),
        ("refund", Decimal("0.5")),
    ]


def test_settling_writes_the_lines_of_the_bill():
    task_id = charged(account("10"), "2", "1.5", of="5")

    lines = UsageLine.objects.filter(task_id=task_id).order_by("position")

    assert [(line.position, line.listed_amount, line.billed_amount, line.usd_reference) for line in lines] == [
        (0, 2, 2, Decimal("0.0020000")),
        (1, Decimal("1.5"), Decimal("1.5"), Decimal("0.0015000")),
    ]
    assert all(line.unit_price == line.price.credits for line in lines)


def test_a_bill_of_nothing_releases_the_whole_hold():
    mine = account("10")
    task_id = held(mine, "4")

    settle(mine, task_id, EMPTY, held="4")

    assert charge(task_id) == {"held": 0, "charged": 0, "refunded": 0}
    assert buckets(mine) == {"available": 10, "held": 0, "charged": 0}


def test_a_waived_bill_without_a_hold_writes_its_lines_only():
    mine, task_id = account("10"), uuid4()
    free = waived({"characters": Decimal(2)}, rates(("characters", "2")))

    settle(mine, task_id, free, held="0")

    assert UsageLine.objects.get(task_id=task_id).listed_amount == 4
    assert mine.transfers.count() == 1
    assert audit.examine().holds


@pytest.mark.parametrize("verb", ["hold", "adjust", "refund"])
def test_a_verb_that_used_up_all_there_was_can_be_repeated(verb):
    mine = account("10")
    task_id = charged(mine, "4") if verb == "refund" else uuid4()
    acts = {
        "hold": lambda: hold(mine.pk, Decimal(10), task_id=task_id),
        "adjust": lambda: ledger.adjust(mine.pk, Decimal(-10), key="click", **WHY),
        "refund": lambda: ledger.refund(mine.pk, Decimal(4), task_id=task_id, key="click", **WHY),
    }

    first = acts[verb]()
    after = buckets(mine)

    assert acts[verb]() == first
    assert buckets(mine) == after


@pytest.mark.parametrize(
    "act",
    [
        lambda mine, task, line: ledger.refund(mine.pk, Decimal(2), task_id=task, key="click", **WHY),
        lambda mine, task, line: ledger.refund(mine.pk, Decimal(9), task_id=task, key="click", **WHY),
        lambda mine, task, line: ledger.refund(mine.pk, Decimal(1), task_id=uuid4(), key="click", **WHY),
        lambda mine, task, line: ledger.refund(mine.pk, Decimal(1), task_id=task, line_id=line, key="click", **WHY),
        lambda mine, task, line: ledger.refund(account("1").pk, Decimal(1), task_id=task, key="click", **WHY),
        lambda mine, task, line: ledger.grant(mine.pk, Decimal(1), key="click", **WHY),
        lambda mine, task, line: ledger.adjust(mine.pk, Decimal(-1), key="click", **WHY),
    ],
)
def test_a_key_of_another_transfer_is_refused_and_moves_nothing(act):
    mine = account("10")
    task_id = charged(mine, "4")
    first = ledger.refund(mine.pk, Decimal(1), task_id=task_id, key="click", **WHY)
    before = buckets(mine)

    with pytest.raises(KeyReused):
        act(mine, task_id, line_ids(task_id)[0])

    assert buckets(mine) == before
    assert ledger.refund(mine.pk, Decimal("1.0000"), task_id=task_id, key="click", **WHY) == first


@pytest.mark.parametrize(
    ("act", "refusal"),
    [
        (lambda mine, task: hold(mine, Decimal(7), task_id=uuid4()), InsufficientBalance),
        (lambda mine, task: ledger.adjust(mine, Decimal(-7), key="k", **WHY), InsufficientBalance),
        (lambda mine, task: ledger.refund(mine, Decimal(5), task_id=task, key="k", **WHY), RefundTooLarge),
        (lambda mine, task: ledger.refund(mine, Decimal(1), task_id=uuid4(), key="k", **WHY), NothingCharged),
        (lambda mine, task: ledger.grant(mine, Decimal(-1), key="k", **WHY), IntegrityError),
        (lambda mine, task: release(mine, Decimal(1), task_id=task), IntegrityError),
    ],
)
def test_a_refused_verb_leaves_nothing(act, refusal):
    mine = account("10")
    task_id = charged(mine, "4")

    with pytest.raises(refusal), transaction.atomic():
        act(mine.pk, task_id)

    assert buckets(mine) == {"available": 6, "held": 0, "charged": 4}
    assert mine.transfers.count() == 3


def test_a_credit_limit_lets_the_available_credits_fall_below_zero():
    mine = account("1", credit_limit=2)

    held(mine, "3")

    assert buckets(mine) == {"available": -2, "held": 3, "charged": 0}
    with pytest.raises(InsufficientBalance):
        held(mine, "0.0001")


def test_a_grant_is_welcome_below_a_lowered_credit_limit():
    mine = account("1", credit_limit=5)
    held(mine, "6")
    Account.objects.filter(pk=mine.pk).update(credit_limit=0)

    ledger.grant(mine.pk, Decimal(1), key="voucher", **WHY)

    assert buckets(mine) == {"available": -4, "held": 6, "charged": 0}


def test_the_monthly_cap_counts_holds_and_charges_and_not_what_was_released():
    mine = account("100", monthly_cap=10)

    charged(mine, "4", of="10")
    held(mine, "6")

    with pytest.raises(SpendCapReached):
        held(mine, "0.0001")
    assert Account.objects.get(pk=mine.pk).month_spent == 10


def test_a_refund_gives_no_room_under_the_monthly_cap():
    mine = account("100", monthly_cap=10)
    task_id = charged(mine, "10")

    ledger.refund(mine.pk, Decimal(10), task_id=task_id, key="click", **WHY)

    with pytest.raises(SpendCapReached):
        held(mine, "1")
