"""Several deliverers at once, in their own processes: caps hold, a host that hangs delays no other, none is lost."""

import time
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection
from django.utils.timezone import now
from standardwebhooks import Webhook, WebhookVerificationError

from billing.credentials import decrypt
from billing.models import Account
from tasks import callbacks, delivery, queues
from tasks.models import Callback, CallbackAttempt, Receiver, Task
from tasks.statuses import Status
from tests.admin.people import root
from tests.builders import account, deployment, task_that_is
from tests.faults.processes import deliverer, kill_group, until
from tests.receiver import Receiver as Server
from tests.receiver import Reply

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _unheard(monkeypatch):
    """No worker hears of what is due."""
    monkeypatch.setattr(queues, "wake", lambda _: None)


@pytest.fixture
def deliverers():
    """Starts processes that deliver what is due, each in a group of its own."""
    started = []

    def start(count, **more):
        started.extend(deliverer(CALLBACK_SCHEDULE="0,0.1,0.1,0.1", **more) for _ in range(count))
        return started

    yield start
    for process in started:
        kill_group(process)


def owe(task, urls):
    """Callbacks of the task, a URL each, all due."""
    made = [
        Callback(task=task, account_id=task.account_id, event="x", url=url, body=f'{{"to":"{url}"}}', tries_left=4)
        for url in urls
    ]
    return Callback.objects.bulk_create(made)


def of_status(status, made):
    return Callback.objects.filter(pk__in=[each.pk for each in made], status=status)


@pytest.mark.chaos
def test_three_hundred_that_hang_delay_no_other_and_what_was_under_way_at_a_kill_is_delivered_again(deliverers):
    of, to = account("100"), deployment()
    stuck, other = (task_that_is(Status.SUCCEEDED, of=of, to=to) for _ in range(2))
    with Server([Reply(delay=60)]) as hanging, Server([Reply(delay=0.1)]) as well:
        late = owe(stuck, [f"{hanging.url}/{number}" for number in range(300)])
        due = owe(other, [f"{well.url}/{number}" for number in range(50)])
        working = deliverers(3, CALLBACK_TIMEOUT_SECONDS="60")
        until(lambda: of_status("delivered", due).count() == 50, within=15)
        until(lambda: len(hanging.requests) == 10, within=10)
        first = CallbackAttempt.objects.order_by("started_at").first().started_at
        last = of_status("delivered", due).order_by("-delivered_at").first().delivered_at
        assert last - first < timedelta(seconds=5)
        assert (hanging.most_at_once, well.most_at_once) == (10, 10)
        assert len({sent.headers["webhook-id"] for sent in well.requests}) == len(well.requests) == 50

        for process in working:
            kill_group(process)
        under_way = {sent.headers["webhook-id"]: sent.body for sent in hanging.requests}
        hanging.answers = [Reply(200)]
        Callback.objects.update(lease_expires_at=now())
        deliverers(2)
        until(lambda: of_status("delivered", late).count() == 300, within=20)

    times = Counter(sent.headers["webhook-id"] for sent in hanging.requests)
    assert {message for message, sent in times.items() if sent == 2} == set(under_way)
    assert set(times.values()) == {1, 2}
    for sent in hanging.requests:
        assert sent.body == under_way.get(sent.headers["webhook-id"], sent.body)
    assert len(times) == 300
    assert {each.number for each in CallbackAttempt.objects.all()} == {1}


def test_a_url_that_hangs_is_paused_and_its_host_is_free_for_others(settings):
    settings.CALLBACK_TIMEOUT_SECONDS = 0.5
    of, to = account("100"), deployment()
    task = task_that_is(Status.SUCCEEDED, of=of, to=to)
    with Server([Reply(delay=0.5 + 1)]) as server:
        stuck = owe(task, [server.url] * 100)
        delivery.deliver_due()
        asked = len(server.requests)
        server.answers = [Reply(200)]
        due = owe(task, [f"{server.url}/other"] * 20)
        delivery.deliver_due()

    assert 10 <= asked < 20  # a place was free when the first gave up, before the tenth did
    assert of_status("delivered", due).count() == 20
    assert Receiver.objects.get().waiting.count() == len(stuck)
    assert set(of_status("pending", stuck).values_list("tries_left", flat=True)) == {3, 4}


def test_a_rotated_secret_signs_beside_the_old_one_until_the_overlap_is_over():
    of, to = account("100"), deployment()
    old = decrypt(of.callback_secret)
    with Server() as server:
        before, during, after = (
            task_that_is(Status.SUCCEEDED, of=of, to=to, callback_url=server.url) for _ in range(3)
        )
        only(before)
        root().do(of, "rotate-secret", reason="a laptop was lost")
        of.refresh_from_db()
        new = decrypt(of.callback_secret)
        only(during)
        Account.objects.filter(pk=of.pk).update(callback_secret_previous_until=now() - timedelta(seconds=1))
        only(after)

    assert new != old
    assert [verifies(sent, old) for sent in server.requests] == [True, True, False]
    assert [verifies(sent, new) for sent in server.requests] == [False, True, True]


def only(task: Task) -> None:
    """Deliver the callback of this task, and of no other."""
    Callback.objects.exclude(task=task).filter(status="pending").update(next_attempt_at=now() + timedelta(hours=1))
    callbacks.redeliver(task.pk, by="test")
    delivery.deliver_due()
    connection.close()


def verifies(sent, secret) -> bool:
    try:
        Webhook(secret).verify(sent.body, dict(sent.headers))
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.scale
def test_a_hundred_thousand_that_wait_cost_a_claim_nothing():
    url = "http://127.0.0.1:9/"
    task, other = (task_that_is(Status.SUCCEEDED, of=account("100")) for _ in range(2))
    Receiver.objects.create(
        account_id=task.account_id,
        url=url,
        failures=10,
        last_failure_at=now(),
        paused_at=now(),
        next_probe_at=now() + timedelta(hours=1),
    )
    for _ in range(100):
        owe(task, [url] * 1000)
    owe(other, [url] * 5)
    Callback.objects.filter(task=other).update(next_attempt_at=now() + timedelta(milliseconds=1))
    waiting = Callback.objects.filter(waits_for__isnull=False)

    until(lambda: now() > Callback.objects.filter(task=other).latest("next_attempt_at").next_attempt_at, within=1)
    assert [each.task_id for each in delivery.claim(200)] == [other.pk] * 5
    until(lambda: delivery.claim(200) == [] and waiting.count() == 100_000, within=20)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE tasks_callback")
    begun = now()
    for _ in range(20):
        assert delivery.claim(200) == []

    assert waiting.count() == 100_000
    assert (now() - begun) / 20 < timedelta(milliseconds=25)


COPIES = """
INSERT INTO tasks_callback (id, task_id, account_id, event, url, format, body, status, tries_left, next_attempt_at)
SELECT gen_random_uuid(), task_id, account_id, event, 'http://x' || number || '.example.com/', format, body, 'pending',
    5, now() + interval '20 hours' FROM tasks_callback, generate_series(1, 100000) number
"""
PAUSED = """
WITH receiver AS (
    INSERT INTO tasks_receiver (account_id, url, failures, last_failure_at, paused_at, probes, next_probe_at)
    SELECT account_id, url, 10, now(), now(), 0, now() + interval '1 hour' FROM tasks_callback WHERE status = 'pending'
    LIMIT 20000 RETURNING id, url
)
UPDATE tasks_callback c SET waits_for_id = receiver.id, waits_since = now() FROM receiver WHERE receiver.url = c.url
"""


@pytest.mark.scale
@pytest.mark.parametrize("statements", [[], [PAUSED]])
def test_a_hundred_thousand_hosts_that_wait_cost_a_claim_nothing(statements):
    of, to = account("100"), deployment()
    task_that_is(Status.SUCCEEDED, callback_url="http://127.0.0.1:9/", of=account("100"), to=to)
    with connection.cursor() as cursor:
        for statement in (COPIES, "UPDATE tasks_callback SET status = 'failed' WHERE url LIKE '%:9/'", *statements):
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE tasks_callback, tasks_receiver")
    took = []
    for _ in range(10):
        task = task_that_is(Status.SUCCEEDED, callback_url="http://127.0.0.1:9/", of=of, to=to)
        begun = time.monotonic()
        assert [each.task_id for each in delivery.claim(200)] == [task.pk]
        took.append(time.monotonic() - begun)

    assert sorted(took)[5] < 0.1
