"""`create_account`: what it prints, what it writes, and that nothing secret is kept in clear."""

import io
import json
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from billing import ledger
from billing.credentials import decrypt, digest
from billing.models import Account, ApiKey, Transfer

pytestmark = pytest.mark.django_db


def create(*words):
    out = io.StringIO()
    call_command("create_account", *words, stdout=out)
    return out.getvalue()


def stored():
    """Every row of the tables that could give a secret away, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT t::text FROM billing_account t UNION ALL SELECT t::text FROM billing_apikey t")
        return "\n".join(row for (row,) in cursor.fetchall())


def test_an_account_is_opened_with_credits_and_a_key():
    said = json.loads(create("Acme", "--credits", "100.5", "--json"))

    account = Account.objects.get(pk=said["account_id"])
    grant = Transfer.objects.get(account=account)
    assert set(said) == {
        "account_id", "name", "credits", "api_key", "callback_secret", "test_api_key", "test_callback_secret"
    }  # fmt: skip
    assert (said["name"], said["credits"]) == (account.name, "100.5000") == ("Acme", "100.5000")
    assert (account.granted, account.available) == (Decimal("100.5"), Decimal("100.5"))
    assert (grant.kind, grant.reason, grant.actor) == ("grant", "opening balance", "operator:cli")


def test_the_key_works_and_nothing_secret_is_kept_in_clear():
    said = json.loads(create("Acme", "--credits", "1", "--json"))

    account = Account.objects.get(pk=said["account_id"])
    key = ApiKey.objects.get(digest=digest(said["api_key"]))
    assert key.account == account
    assert said["api_key"].startswith(key.prefix)
    assert decrypt(account.callback_secret) == said["callback_secret"]
    assert said["api_key"].rpartition("_")[2] not in stored()
    assert said["callback_secret"].removeprefix("whsec_") not in stored()


def test_the_test_key_spends_from_a_twin_with_credits_of_its_own(settings):
    said = json.loads(create("Acme", "--credits", "1", "--json"))

    twin = Account.objects.get(twin_of=said["account_id"])
    assert ApiKey.objects.get(digest=digest(said["test_api_key"])).account == twin
    assert said["test_api_key"].startswith("cf_test_")
    assert decrypt(twin.callback_secret) == said["test_callback_secret"]
    assert twin.available == settings.TEST_CREDITS_A_DAY


def test_people_read_the_same_in_lines():
    said = create("Acme & Söhne", "--credits", "2")

    account = Account.objects.get(twin_of=None)
    key = account.api_keys.get()
    lines = dict(line.split(maxsplit=2)[::2] for line in said.splitlines() if line.startswith(("account", "api")))
    assert lines["account"] == str(account.pk)
    assert digest(lines["api"]) == key.digest
    assert decrypt(account.callback_secret) in said
    assert "Acme & Söhne" in said
    assert said.endswith("they are not shown again.\n")


def test_without_credits_there_is_no_transfer():
    create("Acme")
    create("Acme", "--credits", "0.0000")

    assert Account.objects.filter(name="Acme", available=0).count() == 2
    assert not Transfer.objects.filter(account__twin_of=None).exists()


@pytest.mark.parametrize(
    "amount",
    [
        "NaN",
        "Infinity",
        "-1",
        "1e3",
        "1.00001",
        "1" + "0" * 15,
        "1_000",
        "\u0661",
        "0x10",
        " 1",
        "1\n",
        "",
        "many",
        "1,5",
    ],
)
def test_what_is_no_amount_is_refused_before_anything_is_written(amount):
    with pytest.raises(CommandError, match="is no amount"):
        create("Acme", f"--credits={amount}")

    assert not Account.objects.exists()


@pytest.mark.parametrize("amount", ["0.0001", "999999999999999.9999"])
def test_the_smallest_and_the_largest_amount_are_exact(amount):
    create("Acme", "--credits", amount)

    assert Account.objects.get(twin_of=None).available == Decimal(amount)


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\x00b", "a\nb", "\udc80"])
def test_a_name_that_nobody_can_read_is_refused(name):
    with pytest.raises(CommandError, match="1 to 200 characters"):
        create(name)

    assert not Account.objects.exists()


def test_what_fails_half_way_leaves_nothing(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(ledger, "grant", refuse)

    with pytest.raises(RuntimeError):
        create("Acme", "--credits", "1")

    assert not Account.objects.exists()
    assert not ApiKey.objects.exists()
