"""What an empty database begins with, and that it works."""

import re
from decimal import Decimal
from importlib import import_module

import pytest
from django.apps import apps
from django.core.management import call_command

from billing.models import Price, RateCard, UsageLine
from billing.pricing import FLAT, UNITS
from tasks import lifecycle, runner
from tasks.capabilities import get
from tasks.first_start import activate_test_capabilities
from tasks.models import Deployment, Task
from tasks.submission import Request
from tests.builders import account, assert_sound, buckets, deployment

first_start = import_module("tasks.migrations.0003_first_start")
install, Migration = first_start.install, first_start.Migration


@pytest.fixture
def empty(transactional_db):
    """A database without any row of ours."""
    call_command("flush", interactive=False, verbosity=0)


def offered():
    return list(Deployment.objects.order_by("name").values_list("name", "capability", "is_default", "is_active"))


def test_an_empty_database_gets_three_deployments(empty, settings):
    settings.DEBUG = settings.ENABLE_TEST_CAPABILITIES = False

    install(apps, None)

    assert offered() == [
        ("echo", "test.echo", True, False),
        ("image-transform", "image.transform", True, True),
        ("text-analyze", "text.analyze", True, True),
    ]
    assert [to.rate_card.name for to in Deployment.objects.all()] == ["standard"] * 3
    for to in Deployment.objects.all():
        to.full_clean()
        assert get(to.capability) is not None


@pytest.mark.parametrize("setting", ["DEBUG", "ENABLE_TEST_CAPABILITIES"])
def test_echo_is_active_from_the_start_where_a_setting_says_so(empty, settings, setting):
    setattr(settings, setting, True)

    install(apps, None)

    assert Deployment.objects.get(name="echo").is_active


def test_every_meter_has_a_price_in_its_own_unit(empty):
    install(apps, None)

    assert dict(Price.objects.values_list("meter", "unit")) == UNITS
    assert Price.objects.count() == len(UNITS)
    assert Price.objects.get(meter="reasoning_tokens").credits == 0


def test_a_second_installation_changes_nothing(empty):
    install(apps, None)
    before = offered(), Price.objects.count()

    install(apps, None)

    assert (offered(), Price.objects.count()) == before


def test_a_database_that_is_in_use_is_left_alone(empty):
    deployment("work")

    install(apps, None)

    assert [name for name, *_ in offered()] == ["work"]
    assert [card.name for card in RateCard.objects.all()] == ["work"]


def test_echo_follows_the_settings_and_nothing_else_does(empty, settings):
    install(apps, None)
    deployment("mine", capability="test.echo", is_active=False)
    settings.DEBUG = False

    for allowed in (True, True, False, False):
        settings.ENABLE_TEST_CAPABILITIES = allowed
        activate_test_capabilities()

        assert [name for name, _, _, active in offered() if active] == ["echo"] * allowed + [
            "image-transform",
            "text-analyze",
        ]


def test_a_first_task_is_quoted_run_and_charged_as_quoted(empty):
    install(apps, None)
    of = account("100")
    text = "Counterfoil runs metered tasks. " * 100

    submitted = lifecycle.submit(
        Request(
            account_id=of.pk, api_key_id=None, actor="api_key:test", capability="text.analyze", input={"text": text}
        )
    )
    quoted = Task.objects.get(pk=submitted.task_id).quoted
    assert buckets(of) == {"available": 100 - quoted, "held": quoted, "charged": 0}
    assert runner.run_next("default")

    # 32 characters each, the last a space: 11 letters make 3 tokens, 4 make 1, 7 make 2, 5 make 2, and the full stop.
    assert lines(submitted.task_id) == [
        (FLAT, Decimal(1), Decimal("1.0000"), Decimal("0.0010000")),
        ("input_tokens", Decimal(900), Decimal("0.9000"), Decimal("0.0009000")),
        ("characters", Decimal(3200), Decimal("1.6000"), Decimal("0.0016000")),
    ]
    assert quoted == Decimal("3.5000")
    assert buckets(of) == {"available": Decimal("96.5"), "held": 0, "charged": Decimal("3.5")}
    task = Task.objects.get(pk=submitted.task_id)
    assert (task.status, task.model, task.output["counts"]["words"]) == ("succeeded", "text-analyze", 400)
    assert_sound(of)


def lines(task_id):
    shown = UsageLine.objects.filter(task_id=task_id).order_by("position")
    return list(shown.values_list("meter", "quantity", "billed_amount", "usd_reference"))


def test_migrating_an_empty_database_installs_them(empty):
    (operation,) = Migration.operations

    operation.code(apps, None)

    names = set(Deployment.objects.values_list("name", flat=True))
    assert {"echo", "image-transform", "text-analyze"} <= names
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,36}[a-z0-9]", name) for name in names)
