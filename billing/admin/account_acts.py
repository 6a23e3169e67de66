"""What is done to an account: credits, keys, its callback secret."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.html import format_html
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
)

from billing import ledger
from billing.admin.acts import Act, Done, ReasonForm, agreed
from billing.admin.once import SHOWN_ONCE, OnceForm, keyed
from billing.admin.screens import NOTHING, Table, amount, label, table, when, yes_or_no
from billing.credentials import issue_key, mark, rotate_callback_secret
from billing.exceptions import ChangedSince
from billing.models import SCOPES, Account, default_scopes, printable
from billing.twins import twin_of

GRACE = timedelta(hours=24)
SMALLEST = Decimal("0.0001")
# What one form moves or allows. More is a slip of the finger, and is refused before anything is asked of the database.
MOST = Decimal(10) ** 12


class CreditsField(forms.DecimalField):
    """An amount of credits, four places."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=20, decimal_places=4, widget=UnfoldAdminDecimalFieldWidget, **kwargs)


class GrantForm(ReasonForm):
    amount = CreditsField(min_value=SMALLEST, max_value=MOST, help_text="Credits to give.")


class AdjustForm(ReasonForm):
    amount = CreditsField(min_value=-MOST, max_value=MOST, help_text="Credits to add; with a minus, to take away.")

    def clean_amount(self) -> Decimal:
        if not self.cleaned_data["amount"]:
            raise forms.ValidationError("Nothing would change.")
        return self.cleaned_data["amount"]


class KeyForm(ReasonForm):
    kind = forms.ChoiceField(
        choices=[("live", "Live"), ("test", "Test: runs nothing and spends test credits")],
        initial="live",
        widget=UnfoldAdminSelectWidget,
    )
    name = forms.CharField(
        max_length=200, validators=[printable], widget=UnfoldAdminTextInputWidget, help_text="Who or what uses it."
    )
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in SCOPES],
        initial=default_scopes,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
    )
    expires_at = forms.SplitDateTimeField(
        required=False, widget=UnfoldAdminSplitDateTimeWidget, help_text="In UTC. Empty: never."
    )
    monthly_cap = CreditsField(
        required=False,
        min_value=0,
        max_value=MOST,
        help_text="Credits that the key may hold and be charged in a UTC month. Empty: no cap.",
    )

    def clean_expires_at(self) -> datetime | None:
        expires_at = self.cleaned_data["expires_at"]
        if expires_at and expires_at <= timezone.now():
            raise forms.ValidationError("This time has passed: the key would be refused from the beginning.")
        return expires_at


class AccountAct(Act):
    def facts(self, rows: list[Account]) -> Table:
        active = ("Active", lambda account: yes_or_no(account.is_active))
        credits_ = [(name.capitalize(), name) for name in ("available", "held", "charged")]
        return table("", rows, ("Account", "name"), *credits_, ("Credit limit", "credit_limit"), active)


class Posting(AccountAct):
    """An act that moves credits. Its page tells the balances before and after while the amount is typed."""

    verb = staticmethod(ledger.grant)
    told = ""
    live = ("amount",)

    def tables(self, rows: list[Account], data: dict[str, Any]) -> list[Table]:
        """What each account has, and would have: credits that are available and granted move together."""
        move = data.get("amount") or Decimal(0)
        headers = ["Account", "Available now", "Change", "Available then", "Granted now", "Granted then", "Held"]
        return [Table("", headers, [self._before_and_after(row, move) for row in rows])]

    def seen(self, rows: list[Account]) -> dict[str, str]:
        return {str(account.pk): f"{account.granted:f}" for account in rows}

    def _before_and_after(self, row: Account, move: Decimal) -> list[Any]:
        then: Any = amount(row.available + move)
        if move < 0 and row.available + move < -row.credit_limit:
            then = format_html("{} {}", then, label("below the credit limit: refused", "danger"))
        change = f"{move:+.4f}" if move else NOTHING
        return [row.name, amount(row.available), change, then, amount(row.granted), amount(row.granted + move),
                amount(row.held)]  # fmt: skip

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        key = keyed(self.name, data["key"], row.pk)
        seen = agreed(data["seen"])
        if seen is None:
            raise ChangedSince
        moved = self.verb(row.pk, data["amount"], key=key, reason=data["reason"], actor=by, seen=seen)
        return Done(f"{self.told} {amount(moved.amount)}; {amount(moved.available_after)} credits are available now.")


class Grant(Posting):
    name, title, permission, icon = "grant", "Grant credits", "billing.grant_credits", "add_card"
    form = GrantForm
    told = "Granted"


class Adjust(Posting):
    name, title, permission, icon = "adjust", "Adjust credits", "billing.adjust_credits", "tune"
    note = "Corrects a balance. To give money back for a task, refund the task."
    form = AdjustForm
    verb = staticmethod(ledger.adjust)
    told = "Adjusted by"


class IssueKey(AccountAct):
    name, title, permission, icon = "issue-key", "Issue API key", "billing.issue_apikey", "key"
    note = "The key is shown once, on the next page. Only its fingerprint is kept."
    again = SHOWN_ONCE
    form = KeyForm

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        account, callback_secret = twin_of(row) if data["kind"] == "test" else (row, None)
        chosen = {name: data[name] for name in ("name", "scopes", "expires_at", "monthly_cap")}
        key, secret = issue_key(account, **chosen)
        opened = (("Callback secret of the test account", callback_secret),) if callback_secret else ()
        return Done(f"Issued the API key {key}.", secrets=((f"API key “{key.name}”", secret), *opened))


class RotateSecret(AccountAct):
    name, title, permission, icon = "rotate-secret", "Rotate callback secret", "billing.rotate_secret", "autorenew"
    note = "Callbacks are signed with both secrets for the next 24 hours, then with the new one only. A secret that is "
    note += "older than the present one is dropped at once. The new one is shown once, on the next page."
    again = SHOWN_ONCE

    def facts(self, rows: list[Account]) -> Table:
        ends = ("An older secret is good until", lambda account: when(account.callback_secret_previous_until))
        return table("", rows, ("Account", "name"), ends)

    def seen(self, rows: list[Account]) -> dict[str, str]:
        return {str(account.pk): mark(account.callback_secret) for account in rows}

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        secret = rotate_callback_secret(row, grace=GRACE, seen=data["seen"] or "")
        return Done("Rotated the callback secret.", secrets=(("Callback secret", secret),))


class OpenForm(OnceForm):
    """A new account; credits and a first key for whoever may give them."""

    name = forms.CharField(max_length=200, validators=[printable], widget=UnfoldAdminTextInputWidget)
    opening_credits = CreditsField(
        required=False, min_value=SMALLEST, max_value=MOST, help_text="Granted at once. Empty: none."
    )
    first_key = forms.CharField(
        required=False,
        max_length=200,
        validators=[printable],
        widget=UnfoldAdminTextInputWidget,
        help_text="The name of a first API key with the usual scopes. Empty: none.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not user.has_perm("billing.grant_credits"):
            del self.fields["opening_credits"]
        if not user.has_perm("billing.issue_apikey"):
            del self.fields["first_key"]

    def furnish(self, account: Account, *, by: str) -> list[tuple[str, str]]:
        """Grant the credits and issue the key that were asked for; the key's name and secret, if there is one."""
        if opening := self.cleaned_data.get("opening_credits"):
            key = keyed("open", self.cleaned_data["key"], account.pk)
            ledger.grant(account.pk, opening, key=key, reason="Opening credits", actor=by)
        if not (name := self.cleaned_data.get("first_key")):
            return []
        key, secret = issue_key(account, name=name)
        return [(f"API key “{key.name}”", secret)]
