"""`create_account`: an account with credits, a live and a test key, and callback secrets, which are shown only now."""

import json as jsonlib
import re
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from billing import ledger
from billing.credentials import issue_key, open_account
from billing.models import Account
from billing.twins import twin_of

CREDITS = re.compile(r"\d{1,15}(\.\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Opened:
    """What the owner of a new account is told, once. Credits have four places, as everywhere."""

    account_id: str
    name: str
    credits: str
    api_key: str
    callback_secret: str
    test_api_key: str
    test_callback_secret: str


class Command(BaseCommand):
    help = "Open an account with credits, an API key and a test key. Keys and callback secrets are shown only once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="The customer's name.")
        parser.add_argument(
            "--credits",
            dest="amount",
            metavar="N",
            default="0",
            help="The opening balance, with at most four places (0).",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object.")

    def handle(self, *, name: str, amount: str, json: bool, **options: Any) -> None:
        opened = open_with(checked_name(name), checked_credits(amount))
        self.stdout.write(jsonlib.dumps(asdict(opened)) if json else as_text(opened))


def checked_name(text: str) -> str:
    """A name that people can read and the database can keep."""
    field = Account._meta.get_field("name")
    try:
        return field.clean(text.strip(), None)
    except ValidationError as error:
        raise CommandError(f"A name is printable text of 1 to {field.max_length} characters.") from error


def checked_credits(text: str) -> Decimal:
    if not CREDITS.fullmatch(text):
        raise CommandError(
            f"{text!r} is no amount: credits are a number from 0 to below 10^15 with at most four places."
        )
    return Decimal(text)


@transaction.atomic
def open_with(name: str, amount: Decimal) -> Opened:
    """Open the account and its test twin, grant the credits and issue the keys: all of it or nothing."""
    account, callback_secret = open_account(name)
    if amount:
        ledger.grant(account.pk, amount, key=str(uuid4()), reason="opening balance", actor="operator:cli")
    _, api_key = issue_key(account, name="first")
    twin, test_callback_secret = twin_of(account)
    _, test_api_key = issue_key(twin, name="first")
    return Opened(
        str(account.pk), name, f"{amount:.4f}", api_key, callback_secret, test_api_key, test_callback_secret or ""
    )


def as_text(opened: Opened) -> str:
    """A line each, and a word about those that cannot be had again."""
    lines = [f"{label.replace('_', ' '):<22}{value}" for label, value in asdict(opened).items()]
    return "\n".join([*lines, "", "Keep the API keys and the callback secrets: they are not shown again."])
