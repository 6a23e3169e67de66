"""When a key was last used: noted beside the count of its requests, and kept once a minute."""

from datetime import UTC, datetime, timedelta

import pytest

from billing.models import ApiKey
from tasks import last_uses, sweep
from tasks.api import rates
from tests.builders import account, key
from tests.tasks.api.client import Consumer
from tests.tasks.api.test_tenancy import statements

pytestmark = pytest.mark.django_db(transaction=True)


def used(of):
    return ApiKey.objects.get(pk=of.pk).last_used_at


def test_a_request_writes_nothing_and_the_sweeper_keeps_what_it_noted():
    consumer, idle = Consumer(), key(account())[0]
    with statements() as seen:
        consumer.get("/v1/tasks")
        consumer.get("/v1/tasks/task_01m806yepge72v4969hdkw0ka7")
    assert not [each for each in seen if "UPDATE" in each and "billing_apikey" in each]
    assert used(consumer.api_key) is None

    assert last_uses.keep() == 1

    assert timedelta(0) <= datetime.now(UTC) - used(consumer.api_key) < timedelta(seconds=10)
    assert used(idle) is None
    assert last_uses.keep() == 0


def test_a_later_use_is_not_overwritten_by_an_earlier_one():
    consumer = Consumer()
    consumer.get("/v1/tasks")
    later = datetime.now(UTC) + timedelta(hours=1)
    ApiKey.objects.update(last_used_at=later)

    assert last_uses.keep() == 0

    assert used(consumer.api_key) == later


def test_the_sweeper_keeps_them_once_a_minute(monkeypatch):
    monkeypatch.setattr(sweep, "_done_at", {})
    consumer = Consumer()
    consumer.get("/v1/tasks")
    sweep.keep_last_uses()
    first = used(consumer.api_key)
    ApiKey.objects.update(last_used_at=None)
    consumer.get("/v1/tasks")

    sweep.keep_last_uses()
    assert (first is not None, used(consumer.api_key)) == (True, None)
    monkeypatch.setattr(sweep, "MINUTE", 0)
    sweep.keep_last_uses()

    assert used(consumer.api_key) is not None


def test_without_valkey_requests_are_answered_and_only_precision_is_lost(settings, monkeypatch):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    for cached in (rates._script, last_uses._script):
        cached.cache_clear()
    monkeypatch.setattr(rates, "_left_alone_until", 0.0)
    consumer = Consumer()
    try:
        assert consumer.get("/v1/tasks").status_code == 200
        assert last_uses.keep() == 0
    finally:
        for cached in (rates._script, last_uses._script):
            cached.cache_clear()

    assert used(consumer.api_key) is None
