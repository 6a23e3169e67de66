"""Deployments and prices: the rows that operators write themselves; and the ready-made groups."""

import json
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.auth.models import Group, Permission
from django.urls import reverse
from django.utils import timezone

from billing.models import Price, RateCard
from tasks.models import Deployment
from tests.admin.people import history, member, page_url, root
from tests.builders import deployment

pytestmark = pytest.mark.django_db
PRICE = {"meter": "input_tokens", "unit_size": "1000", "credits": "0.5", "effective_from_0": "", "effective_from_1": ""}


def add(person, model, fields):
    return person.client.post(reverse(f"admin:{model}_add"), fields)


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_prices_are_written_on_the_page_of_their_card_only(group):
    card, person = RateCard.objects.create(name="gold"), member(group)
    door = reverse("admin:billing_price_add")

    shown, sent = person.get(door), person.client.post(door, PRICE | {"rate_card": str(card.pk)})

    assert (shown.status_code, sent.status_code) == (302 if group == "Billing" else 403, 403)
    assert not Price.objects.filter(rate_card=card).exists()


def test_a_price_is_never_changed():
    price = Price.objects.create(rate_card=RateCard.objects.create(name="gold"), meter="task", unit="task", credits=1)

    answer = root().client.post(page_url(price), PRICE)

    assert answer.status_code == 403


def fields_of(to: Deployment, **changed):
    names = ("name", "capability", "resolved_model", "queue", "timeout", "max_retries", "ttl", "max_lifetime")
    flags = {name: "on" for name in ("is_active", "is_default", "bills_partial_output") if getattr(to, name)}
    settings = {"rate_card": str(to.rate_card_id), "settings": "{}", "max_pending": ""}
    return {name: getattr(to, name) for name in names} | flags | settings | changed


def test_a_deployment_is_added_and_edited():
    card, person = RateCard.objects.create(name="gold"), root()
    new = Deployment(name="fast", capability="test.work", resolved_model="fast-1", rate_card=card)

    added = add(person, "tasks_deployment", fields_of(new))
    made = Deployment.objects.get(name="fast")
    edited = person.edit(made, fields_of(made, timeout=5, settings='{"base_url": "https://x"}'))

    assert (added.status_code, edited.status_code) == (302, 302)
    made.refresh_from_db()
    assert (made.timeout, made.settings, made.is_active) == (5, {"base_url": "https://x"}, True)
    assert history(made) == ["Added.", 'Changed Timeout: 600 → 5; Settings: {} → {"base_url": "https://x"}.']


def test_an_edit_of_a_deployment_leaves_alone_that_it_was_drained_meanwhile():
    made, person = deployment(), root()
    Deployment.objects.filter(pk=made.pk).update(drained_at=timezone.now())

    person.edit(made, fields_of(made, timeout=5, drained_at="", drained_at_0=""))

    made.refresh_from_db()
    assert made.timeout == 5
    assert made.drained_at is not None


@pytest.mark.parametrize(
    "wrong",
    [{"queue": "callbacks"}, {"name": "Not A Name"}, {"timeout": 0}, {"capability": "no.such"}, {"settings": "{"}],
)
def test_a_deployment_that_makes_no_sense_is_an_error_of_the_form(wrong):
    made, person = deployment(), root()

    answer = person.edit(made, fields_of(made) | wrong)

    assert answer.context["errors"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"a": NaN}', "NaN is no number in JSON."),
        ('{"a": -Infinity}', "-Infinity is no number in JSON."),
        ('{"a": 1e999999}', "A number does not fit into 64 bits."),
        ('{"a": %s}' % ("9" * 5000), "A number does not fit into 64 bits."),
        ('{"a": "\\ud800"}', "A text contains a lone surrogate."),
        ('{"\\udfff": 1}', "A text contains a lone surrogate."),
        ('{"a": "\\u0000"}', "A text contains a NUL character."),
        ('{"a": %s}' % ("[" * 40 + "]" * 40), "It is nested deeper than 32."),
        ('{"a": %s}' % ("[" * 100_000 + "]" * 100_000), "It is nested deeper than 32."),
        ('{"a": 1, "a": 2}', "A key stands twice in an object."),
        ("[1]", "Enter a JSON object."),
        ("null", "Enter a JSON object."),
        ('{"a": 1', "Enter a valid JSON."),
    ],
    ids=lambda text: text[:20],
)
def test_settings_that_are_no_strict_json_are_an_error_that_shows_what_was_typed(settings, message):
    made, person = deployment(), root()

    answer = person.edit(made, fields_of(made, settings=settings))

    form = answer.context["adminform"].form
    assert form.errors == {"settings": [message]}
    assert form["settings"].value() == settings
    made.refresh_from_db()
    assert made.settings == {}


def test_settings_hold_any_object_and_nothing_typed_is_an_empty_one():
    made, person = deployment(), root()
    kept = {"url": "https://x", "limits": [1, 2.5, -(2**63), 2**64 - 1, None, True], "name": "Zoë"}

    def save(settings):
        assert person.edit(made, fields_of(made, settings=settings)).status_code == 302
        made.refresh_from_db()
        return made.settings

    assert save(json.dumps(kept)) == kept
    assert save(" ") == {}
    first, second = history(made)
    assert first.startswith('Changed Settings: {} → {"url": "https://x", ')
    assert second.endswith(" → {}.")


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_set_up_is_for_its_groups_only(group):
    made, person = deployment(), member(group)

    assert person.get(reverse("admin:tasks_deployment_add")).status_code == (200 if group == "Operator" else 403)
    answer = person.edit(made, fields_of(made, timeout=5))
    assert answer.status_code == (302 if group == "Operator" else 403)


def acts_of(group):
    kept = Group.objects.get(name=group).permissions.all()
    return {p.codename for p in kept if not p.codename.startswith("view_") or p.codename == "view_content"}


TASK_ACTS = {
    "cancel_task", "rerun_task", "pause_task", "extend_deadline", "change_priority", "redeliver_callback",
    "drain_deployment", "try_deployment", "delete_content", "view_content",
}  # fmt: skip
BILLING_ACTS = {
    "refund_charge", "grant_credits", "adjust_credits", "issue_apikey", "rotate_secret", "disable_account",
}  # fmt: skip


def test_the_ready_made_groups_may_what_was_decided():
    import_module("tasks.migrations.0004_groups").create_groups(apps, None)
    import_module("tasks.migrations.0017_notes_and_endpoints").extend_groups(apps, None)
    import_module("config.migrations.0001_logins").let_operators_unlock(apps, None)
    import_module("tasks.migrations.0020_trials").let_operators_try(apps, None)

    notes = {"add_accountnote", "add_webhookendpoint", "delete_webhookendpoint"}
    assert acts_of("Operator") == TASK_ACTS | notes | {
        "add_deployment", "change_deployment", "delete_accessattempt",
    }  # fmt: skip
    assert acts_of("Billing") == BILLING_ACTS | notes | {"cancel_task", "rerun_task"} | {
        "add_account", "change_account", "add_price", "add_ratecard",
    }  # fmt: skip
    assert acts_of("Support") == set()


def test_every_act_of_ours_is_somebodys():
    ours = {(model._meta.app_label, name) for model in apps.get_models() for name, _ in model._meta.permissions}

    assert {name for app, name in ours if app in ("tasks", "billing")} == TASK_ACTS | BILLING_ACTS


def test_the_groups_are_kept_when_they_are_made_again():
    made = import_module("tasks.migrations.0004_groups").create_groups
    made(apps, None)
    Group.objects.get(name="Support").permissions.add(Permission.objects.get(codename="cancel_task"))

    made(apps, None)

    assert acts_of("Support") == {"cancel_task"}
    assert Group.objects.count() == 3
