"""Money as a state machine: whatever is done in whatever order, and dies wherever, the book foretells all of it."""

import psycopg
import pytest
import redis
from django.conf import settings as django_settings
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.processes import database_url
from tests.money.crashes import MOMENTS
from tests.money.machine import FORETOLD, MoneyMachine

pytestmark = pytest.mark.django_db(transaction=True)
ALWAYS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


@pytest.fixture(autouse=True)
def _beside(settings):
    """A session of its own ends the others; retries wait for nothing; what was sent to the broker goes."""
    settings.RETRY_BACKOFF_SECONDS = 0
    with psycopg.connect(database_url(), autocommit=True) as MoneyMachine.killer:
        yield
    redis.from_url(django_settings.REDIS_URL).flushdb()


def play(**how):
    """How often each thing was seen: done, refused for a reason, died at a moment."""
    MoneyMachine.seen.clear()
    run_state_machine_as_test(MoneyMachine, settings=settings(**ALWAYS, **how))
    return MoneyMachine.seen


def test_the_books_are_what_a_simple_model_foretells():
    seen = play(max_examples=20, stateful_step_count=45, derandomize=True)

    assert seen["done"] > 50
    assert len(seen.keys() & FORETOLD.keys()) >= 4
    assert len({moment for moment in MOMENTS for happened in seen if happened.startswith(f"died {moment}")}) >= 4


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_the_books_are_what_a_simple_model_foretells_for_long():
    seen = play(max_examples=300, stateful_step_count=60)

    assert seen.keys() >= {"done", *FORETOLD, *(f"died {moment}" for moment in MOMENTS[:-1])}
    assert seen.keys() >= {"died after commit, done", "died after, done"}
