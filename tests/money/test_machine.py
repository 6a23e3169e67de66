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


def foretold(**how):
    """Play it; an act of every kind was refused for every reason, and died at every moment."""
    MoneyMachine.seen.clear()
    run_state_machine_as_test(MoneyMachine, settings=settings(**ALWAYS, **how))
    assert set(MoneyMachine.seen) >= {"done", *FORETOLD, *(f"died {moment}" for moment in MOMENTS[:-1])}
    assert "died after commit, done" in MoneyMachine.seen


def test_the_books_are_what_a_simple_model_foretells():
    foretold(max_examples=40, stateful_step_count=50, derandomize=True)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_the_books_are_what_a_simple_model_foretells_for_long():
    foretold(max_examples=300, stateful_step_count=60)
