"""A secret is in the one answer that made it, and nowhere afterwards."""

import logging

import pytest
from django.apps import apps

from billing.models import Account, ApiKey
from tests.admin.everywhere import pages
from tests.admin.people import root
from tests.admin.world import world

pytestmark = pytest.mark.django_db


def kept() -> str:
    """Every value of every row, as the database has it."""
    return "\n".join(str(row) for model in apps.get_models() for row in model._base_manager.values_list())


def made_by(person, made) -> dict[str, str]:
    """Every secret that the admin makes, by the act that makes it."""
    key = ApiKey.objects.filter(account=made.account, revoked_at=None).first()
    answers = {
        "open": person.open(name="Umbrella", credits="10", reason="new"),
        "issue": person.do(made.account, "issue-key", name="web", kind="live", scopes=["tasks:read"]),
        "test": person.do(made.account, "issue-key", name="rehearsal", kind="test", scopes=["tasks:read"]),
        "roll": person.do(key, "roll", overlap_hours="1"),
        "rotate": person.do(made.account, "rotate-secret"),
    }
    return {f"{act} {name}": secret for act, answer in answers.items() for name, secret in answer.context["secrets"]}


def test_a_secret_is_shown_once(caplog):
    caplog.set_level(logging.DEBUG)
    made, person = world(), root()

    secrets = made_by(person, made)
    shown = "".join(person.get(url).content.decode() for url in pages())
    everywhere = {"pages": shown, "rows": kept(), "log": caplog.text}

    assert len(secrets) >= 6
    assert all(len(secret) > 30 for secret in secrets.values())
    assert [
        (name, place) for name, secret in secrets.items() for place, text in everywhere.items() if secret in text
    ] == []
    assert made.key.digest not in shown
    assert Account.objects.get(pk=made.account.pk).callback_secret not in shown


def test_the_page_that_shows_a_secret_is_kept_by_nobody():
    made, person = world(), root()

    answer = person.do(made.account, "issue-key", name="web", kind="live", scopes=["tasks:read"])

    [(_, secret)] = answer.context["secrets"]
    assert secret in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    assert answer.redirect_chain == []
