"""Many at once, when workers die, operators meet and rows change: nothing happens twice, nor what nobody saw."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import IntegrityError, connection
from django.utils.timezone import now

from billing.exceptions import ChangedSince
from billing.models import Account
from tasks import bulk, foretelling, lifecycle, sweep
from tasks.models import BulkAction, Deployment, Task
from tests.builders import account, assert_sound, buckets, claim, deployment, submit
from tests.tasks import test_bulk
from tests.tasks.test_bulk import begun, charged, frozen, outcomes, refunds

pytestmark = pytest.mark.django_db(transaction=True)
ann, woken = test_bulk.ann, test_bulk.woken


class Killed(BaseException):
    """The worker is gone."""


@pytest.fixture
def die(monkeypatch):
    """Let a worker die after its first verb, and its lease run out."""

    def dying(action):
        def here(place):
            raise Killed(place)

        with monkeypatch.context() as patched:
            patched.setattr(bulk, "here", here)
            with pytest.raises(Killed):
                bulk.act_on_many()
        BulkAction.objects.filter(pk=action.pk).update(lease_expires_at=now() - timedelta(seconds=1))

    return dying


def started(action, operator) -> BulkAction:
    return bulk.start(action.pk, operator=operator, reason="again", number=action.suited, seen=action.digest)


def test_what_a_lost_worker_had_done_is_written_when_the_action_is_aborted_and_not_tried_again(ann, die):
    owner = account("100")
    tasks = [charged(owner), charged(owner)]
    action = begun(ann, "refund", percent="50")
    die(action)

    bulk.abort(action.pk, by="operator:bob")
    action.refresh_from_db()
    rest = bulk.again(action, operator=ann)
    started(rest, ann)
    bulk.act_on_many()

    assert (action.done, action.moved, rest.total) == (1, Decimal("3.5"), 1)
    assert refunds() == [Decimal("3.5")] * 2
    assert [LogEntry.objects.filter(object_id=str(task.pk)).count() for task in tasks] == [1, 1]
    assert_sound(owner)


def test_what_was_done_before_an_abort_is_written_by_whoever_comes_next(ann, die, woken):
    task = charged(account("100"))
    action = begun(ann, "refund")
    die(action)
    BulkAction.objects.update(lease_expires_at=now() + timedelta(hours=1))
    bulk.abort(action.pk, by="operator:bob")
    with pytest.raises(bulk.NotStarted, match="has not come back"):
        bulk.again(BulkAction.objects.get(), operator=ann)
    BulkAction.objects.update(lease_expires_at=now() - timedelta(seconds=1))
    woken.clear()

    sweep.wake_bulk()
    bulk.act_on_many()

    action.refresh_from_db()
    assert (action.status, action.done, action.moved, action.lease_token) == ("aborted", 1, 7, None)
    assert (refunds(), len(woken), LogEntry.objects.filter(object_id=str(task.pk)).count()) == ([7], 1, 1)


def test_what_a_lost_worker_had_done_is_written_when_its_operator_may_not_any_more(ann, die):
    charged(account("100"))
    action, bob = begun(ann, "refund", percent="50"), User.objects.create_superuser("bob")
    die(action)
    User.objects.filter(pk=ann.pk).update(is_active=False)

    bulk.act_on_many()
    action.refresh_from_db()

    assert (action.status, action.done, action.moved) == ("stopped", 1, Decimal("3.5"))
    assert bulk.again(action, operator=bob).total == 0
    assert refunds() == [Decimal("3.5")]


def test_an_action_is_tried_again_once_and_under_the_keys_of_the_first(ann):
    charged(account("100"))
    action = begun(ann, "refund", percent="25")
    bulk.abort(action.pk, by="operator:ann")
    action.refresh_from_db()

    retry, same = bulk.again(action, operator=ann), bulk.again(action, operator=ann)
    bulk.abort(retry.pk, by="operator:ann")
    other = bulk.again(action, operator=ann)

    assert (same, same.root) == (retry, action.pk)
    assert (other.pk != retry.pk, other.root) == (True, action.pk)
    with pytest.raises(IntegrityError, match="a_bulk_action_is_tried_again_once"):
        BulkAction.objects.filter(pk=retry.pk).update(status="ready", ended_at=None)


def test_what_has_not_been_over_is_not_tried_again_and_what_nobody_started_is_forgotten_with_it(ann, monkeypatch):
    submit()
    ready, running = frozen(ann, "pause"), begun(ann, "pause")
    for action in (ready, running):
        with pytest.raises(bulk.NotStarted, match="has not been over yet"):
            bulk.again(BulkAction.objects.get(pk=action.pk), operator=ann)
    BulkAction.objects.filter(pk=running.pk).update(retry_of=ready)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE tasks_bulkaction SET created_at = now() - interval '25 h'")
    monkeypatch.setattr(sweep, "_done_at", {})

    sweep.forget_unstarted()

    assert BulkAction.objects.count() == 2


SAME = {"refund": {"percent": "50"}, "extend_deadline": {"minutes": 60}, "rerun": {}, "rerun_free": {}}


@pytest.mark.parametrize("act", SAME)
def test_of_two_actions_on_the_same_tasks_the_second_is_refused(ann, act):
    """Whether both are running or the second is started after the first is done."""
    owner, data = account("100"), SAME[act]
    task = submit(owner, deployment(max_lifetime=864000)) if act == "extend_deadline" else charged(owner)
    one, two, late = (frozen(ann, act, [task], **data) for _ in range(3))
    was = task.deadline
    started(one, ann)
    started(two, ann)

    bulk.act_on_many()
    for again in Task.objects.filter(rerun_of=task):
        lifecycle.cancel(again.pk, by="test")

    assert [outcome for outcome, _ in outcomes(one) + outcomes(two)] == ["done", "refused"]
    with pytest.raises(ChangedSince):
        started(late, ann)
    task.refresh_from_db()
    assert refunds() == ([Decimal("3.5")] if act == "refund" else [])
    assert task.deadline - was == timedelta(minutes=60 if act == "extend_deadline" else 0)
    assert task.reruns.count() == (1 if act.startswith("rerun") else 0)


def test_a_start_is_refused_when_rows_were_swapped_though_the_sums_are_the_same(ann):
    owner, to = account("100"), deployment(prices=(("task", "1"),))
    done = submit(owner, to)
    lifecycle.succeed(claim(done), output=1, usage={}, warnings=[])
    run = submit(owner, to)
    claimed = claim(run)
    action = frozen(ann, "refund")
    lifecycle.refund(done.pk, key="x", reason="x", by="test")
    lifecycle.succeed(claimed, output=1, usage={}, warnings=[])

    for _ in range(2):
        with pytest.raises(ChangedSince):
            started(action, ann)

    action.refresh_from_db()
    assert (action.status, action.suited, refunds()) == ("ready", 1, [1])
    started(action, ann)


def test_a_start_goes_on_without_the_rows_that_it_suits_no_more(ann):
    owner = account("100")
    gone, left = submit(owner), submit(owner)
    action = frozen(ann, "cancel")
    lifecycle.cancel(gone.pk, by="test")

    started(action, ann)
    bulk.act_on_many()

    assert outcomes(action) == [("refused", "It has ended."), ("done", "Canceled.")]
    assert left.events.get(type="task.canceled").data["private"] == {"key": f"bulk:{action.pk}:{left.pk}"}


def test_what_somebody_did_by_hand_is_no_proof_that_the_row_was_done(ann, monkeypatch):
    task = submit()
    action = begun(ann, "change_priority", priority=9)
    with monkeypatch.context() as patched:
        patched.setattr(bulk, "perform", lambda *args: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            bulk.act_on_many()
    BulkAction.objects.update(lease_expires_at=now() - timedelta(seconds=1))
    lifecycle.change_priority(task.pk, 2, by="operator:ann", reason="by hand")

    bulk.act_on_many()

    task.refresh_from_db()
    assert (task.priority, outcomes(action)) == (9, [("done", "Its priority is 9.")])


def test_a_cancel_that_is_found_done_still_says_what_it_released(ann, die):
    owner = account("10")
    submit(owner)
    action = begun(ann, "cancel")
    die(action)

    bulk.act_on_many()

    action.refresh_from_db()
    assert (action.done, action.moved, action.credits) == (1, 1, 1)


def test_a_cancel_foretells_what_streamed_output_costs(ann):
    owner = account("100")
    to = deployment(prices=(("task", "1"), ("output_tokens", "2")), bills_partial_output=True)
    task = submit(owner, to, input={"bound": {"output_tokens": 10}})
    claimed = claim(task)
    lifecycle.publish(claimed, text="so far", offset=0, usage={"output_tokens": Decimal(3)})
    action = frozen(ann, "cancel")
    foretold = action.credits
    lifecycle.publish(claimed, text=" and on", offset=6, usage={"output_tokens": Decimal(4)})

    started(action, ann)
    bulk.act_on_many()

    action.refresh_from_db()
    assert (foretold, action.credits, action.moved, buckets(owner)["charged"]) == (15, 13, 13, 8)


@pytest.mark.parametrize("limit", ["cap", "places"])
def test_reruns_beyond_a_cap_or_a_full_deployment_are_foretold(ann, limit):
    owner, to = account("100"), deployment(prices=(("task", "1"),))
    tasks = [submit(owner, to) for _ in range(4)]
    for task in tasks:
        lifecycle.succeed(claim(task), output=1, usage={}, warnings=[])
    spent = Account.objects.get(pk=owner.pk).month_spent
    if limit == "cap":
        Account.objects.filter(pk=owner.pk).update(monthly_cap=spent + 2)
    else:
        Deployment.objects.filter(pk=to.pk).update(max_pending=2)

    action = frozen(ann, "rerun", tasks)
    foretold = (action.suited, action.credits, action.foretold)
    action.rows.update(foretold="", credits=1)
    BulkAction.objects.filter(pk=action.pk).update(status="running", started_at=now(), reason="x")
    bulk.act_on_many()

    action.refresh_from_db()
    why = foretelling.CAPPED if limit == "cap" else foretelling.FULL
    assert foretold == (2, 2, [{"why": why, "tasks": 2}])
    assert (action.done, action.moved, action.refused) == (2, 2, 2)
