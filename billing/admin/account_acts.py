"""What is done to an account: credits, keys, its callback secret, its door."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import F, Q
from django.db.models.functions import Now
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
)

from billing import ledger
from billing.admin.acts import Act, Declined, Done, ReasonForm
from billing.admin.once import SHOWN_ONCE, OnceForm, keyed
from billing.admin.screens import Table, table, yes_or_no
from billing.credentials import encrypt, issue_key, new_callback_secret
from billing.models import SCOPES, Account, default_scopes, printable
from billing.twins import twin_of

GRACE = timedelta(hours=24)
SMALLEST = Decimal("0.0001")


class CreditsField(forms.DecimalField):
    """An amount of credits, four places."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=20, decimal_places=4, widget=UnfoldAdminDecimalFieldWidget, **kwargs)


class GrantForm(ReasonForm):
    amount = CreditsField(min_value=SMALLEST, help_text="Credits to give.")


class AdjustForm(ReasonForm):
    amount = CreditsField(help_text="Credits to add; with a minus, to take away.")

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
        help_text="Credits that the key may hold and be charged in a UTC month. Empty: no cap.",
    )


class AccountAct(Act):
    def facts(self, rows: list[Account]) -> Table:
        active = ("Active", lambda account: yes_or_no(account.is_active))
        credits_ = [(name.capitalize(), name) for name in ("available", "held", "charged")]
        return table("", rows, ("Account", "name"), *credits_, ("Credit limit", "credit_limit"), active)


class Posting(AccountAct):
    """An act that moves credits."""

    verb = staticmethod(ledger.grant)
    told = ""

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        key = keyed(self.name, data["key"], row.pk)
        moved = self.verb(row.pk, data["amount"], key=key, reason=data["reason"], actor=by)
        return Done(f"{self.told} {moved.amount:f}; {moved.available_after:f} credits are available now.")


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
    note = "Callbacks are signed with both secrets for the next 24 hours, then with the new one only."
    again = SHOWN_ONCE

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        secret = new_callback_secret()
        Account.objects.filter(pk=row.pk).update(
            callback_secret_previous=F("callback_secret"),
            callback_secret_previous_until=Now() + GRACE,
            callback_secret=encrypt(secret),
        )
        return Done("Rotated the callback secret.", secrets=(("Callback secret", secret),))


class Disable(AccountAct):
    name, title, permission, icon = "disable", "Disable account", "billing.disable_account", "block"
    variant = ActionVariant.DANGER
    note = "Every request of the account is refused from now on, reads too, and so are those with its test keys. "
    note += "Tasks that are queued or running go on and are charged."

    def suits(self, row: Account) -> bool:
        return row.is_active

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        if not _with_its_twin(row).filter(is_active=True).update(is_active=False):
            raise Declined("it was disabled before.")
        return Done("Disabled the account.")


class Enable(AccountAct):
    name, title, permission, icon = "enable", "Enable account", "billing.disable_account", "check_circle"
    note = "Requests of the account and of its test keys are answered again."

    def suits(self, row: Account) -> bool:
        return not row.is_active

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        if not _with_its_twin(row).filter(is_active=False).update(is_active=True):
            raise Declined("it was enabled before.")
        return Done("Enabled the account.")


def _with_its_twin(account: Account) -> Any:
    return Account.objects.filter(Q(pk=account.pk) | Q(twin_of=account.pk))


class OpenForm(OnceForm):
    """A new account; credits and a first key for whoever may give them."""

    name = forms.CharField(max_length=200, validators=[printable], widget=UnfoldAdminTextInputWidget)
    opening_credits = CreditsField(required=False, min_value=SMALLEST, help_text="Granted at once. Empty: none.")
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
