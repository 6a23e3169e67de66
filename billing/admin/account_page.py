"""What stands on an account's page: its balances and limits, its keys, what was done to it and what was noted."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import get_content_type_for_model
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from billing.admin.limits import told
from billing.admin.screens import NOTHING, Table, amount, label, link, listing, table, when
from billing.models import NEARLY, Account, ApiKey

ROWS = 10
NOTES = 5
OF_KEYS = (("roll", "Roll"), ("set-cap", "Cap"), ("revoke", "Revoke"))


@dataclass(frozen=True)
class Used:
    """A limit, what of it is used, and how much that is for a bar: 0 to 100."""

    name: str
    used: str
    most: str
    percent: int | None = None

    @property
    def tight(self) -> bool:
        return self.percent is not None and self.percent >= NEARLY * 100


def states(account: Account) -> SafeString:
    """In which state an account is: what keeps it from working first."""
    found = [("active", "success")] if account.is_active else [("disabled", "danger")]
    spent = percent_of_cap(account)
    if spent is not None and spent >= NEARLY * 100:
        found.append((f"cap {spent} %", "danger" if spent >= 100 else "warning"))
    if account.low_since:
        found.append(("low", "warning"))
    if account.in_credit:
        found.append(("on credit", "warning"))
    if account.twin_of_id:
        found.append(("test", ""))
    if account.is_internal:
        found.append(("internal", "info"))
    return format_html_join(" ", "{}", ((label(*state),) for state in found))


def spent_this_month(account: Account) -> Decimal:
    """Holds and charges of the present UTC month; the row still counts an earlier one until something is held."""
    return account.month_spent if account.month == _this_month() else Decimal("0.0000")


def percent_of_cap(account: Account) -> int | None:
    """How much of its monthly cap is used, in whole per cent; None without a cap."""
    return _percent(spent_this_month(account), account.monthly_cap)


def limits(account: Account) -> list[Used]:
    """Its limits, and what of each is used now."""
    spent = spent_this_month(account)
    on_credit = max(Decimal("0.0000"), -account.available)
    return [
        Used("Running tasks", *_used(account.running, account.running_limit)),
        Used("Unfinished tasks", *_used(account.pending, account.pending_limit)),
        Used(f"Spent in {_this_month():%B %Y} (UTC)", *_used(spent, account.monthly_cap)),
        Used("Credit used", *_used(on_credit, account.credit_limit)),
    ]


def settings_of(account: Account) -> list[tuple[str, str]]:
    """What else is set, and what has no measure."""
    return [
        ("Requests a minute", told(account.requests_per_minute)),
        ("Low balance below", told(account.low_balance_threshold)),
        ("Low since", when(account.low_since)),
        ("Old callback secret until", _still(account.callback_secret_previous_until)),
    ]


def imbalance(account: Account) -> list[str]:
    """What is wrong with its balances: nothing, as long as the database keeps its word."""
    kept = account.available + account.held + account.charged
    if kept == account.granted:
        return []
    return [f"{amount(account.granted)} credits were granted, but {amount(kept)} are here. Run `manage.py audit`."]


def keys_table(account: Account, request: HttpRequest) -> Table:
    """Its keys, newest first, and what may be done to each."""
    acting = request.user.has_perm("billing.issue_apikey")
    acts = (("Acts", _acts_of),) if acting else ()
    return table(
        "API keys",
        account.api_keys.order_by("-id")[:ROWS],
        ("Name", lambda key: link("billing_apikey", key.pk, key.name)),
        ("Begins with", "prefix"),
        ("State", key_state),
        ("Scopes", lambda key: ", ".join(key.scopes)),
        ("Cap used", _cap_of),
        ("Last used", "last_used_at"),
        ("Expires", "expires_at"),
        *acts,
        more=listing("billing_apikey", account__id=account.pk),
    )


def key_state(key: ApiKey) -> SafeString:
    if key.revoked_at:
        return label("revoked", "danger")
    if key.expires_at and key.expires_at <= timezone.now():
        return label("expired", "warning")
    return label("valid", "success")


def history_table(account: Account) -> Table:
    """What operators did to the account, and why."""
    kind = get_content_type_for_model(account)
    entries = LogEntry.objects.filter(content_type=kind, object_id=str(account.pk)).select_related("user")
    return table(
        "Acts",
        entries.order_by("-action_time")[:ROWS],
        ("What and why", lambda entry: entry.get_change_message()),
        ("By", lambda entry: entry.user.get_username()),
        ("Time", "action_time"),
        more=reverse("admin:billing_account_history", args=[account.pk]),
    )


def _acts_of(key: ApiKey) -> Any:
    if key.revoked_at:
        return NOTHING
    acts = ((f"{reverse(f'admin:billing_apikey_{act}')}?ids={key.pk}", title) for act, title in OF_KEYS)
    return format_html_join(" ", '<a href="{}" class="mr-2 text-link">{}</a>', acts)


def _cap_of(key: ApiKey) -> str:
    if key.monthly_cap is None:
        return NOTHING
    spent = key.month_spent if key.month == _this_month() else Decimal("0.0000")
    return f"{amount(spent)} of {amount(key.monthly_cap)}"


def _used(used: Any, most: Any) -> tuple[str, str, int | None]:
    return told(used), told(most), _percent(used, most)


def _percent(used: Any, most: Any) -> int | None:
    if most is None:
        return None
    return min(100, int(used * 100 / most)) if most else (100 if used else 0)


def _still(moment: datetime | None) -> str:
    return when(moment) if moment and moment > timezone.now() else NOTHING


def _this_month() -> date:
    return datetime.now(UTC).date().replace(day=1)
