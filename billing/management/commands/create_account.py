"""`create_account`: an account with credits, an API key and a callback secret. The secrets are shown only now."""

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

CREDITS = re.compile(r"\d{1,15}(\.\d{1,4})?", re.ASCII)


@dataclass(frozen=True)
class Opened:
    """What the owner of a new account is told, once. Credits have four places, as everywhere."""

    account_id: str
    name: str
    credits: str
    api_key: str
    callback_secret: str


class Command(BaseCommand):
    help = "Open an account with credits and an API key. The key and the callback secret are shown only once."

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
    """Open the account, grant the credits and issue the key: all of it or nothing."""
    account, callback_secret = open_account(name)
    if amount:
        ledger.grant(account.pk, amount, key=str(uuid4()), reason="opening balance", actor="operator:cli")
    _, api_key = issue_key(account, name="first")
    return Opened(str(account.pk), name, f"{amount:.4f}", api_key, callback_secret)


def as_text(opened: Opened) -> str:
    """A line each, and a word about those that cannot be had again."""
    lines = [f"{label.replace('_', ' '):<16}{value}" for label, value in asdict(opened).items()]
    return "\n".join([*lines, "", "Keep the API key and the callback secret: they are not shown again."])
