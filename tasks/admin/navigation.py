"""The admin's menu: what an operator looks for, in the order of a working day."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse

MENU = [
    ("Tasks", [
        ("Tasks", "bolt", "tasks_task"),
        ("Many at once", "done_all", "tasks_bulkaction"),
        ("Runs", "directions_run", "tasks_run"),
        ("Events", "timeline", "tasks_taskevent"),
        ("Callbacks", "outgoing_mail", "tasks_callback"),
        ("Callback tries", "sync_alt", "tasks_callbackattempt"),
        ("Webhook endpoints", "webhook", "tasks_webhookendpoint"),
        ("Receivers", "dns", "tasks_receiver"),
    ]),
    ("Billing", [
        ("Accounts", "account_balance_wallet", "billing_account"),
        ("API keys", "key", "billing_apikey"),
        ("Notes", "sticky_note_2", "billing_accountnote"),
        ("Charges", "receipt_long", "billing_charge"),
        ("Usage lines", "speed", "billing_usageline"),
        ("Transfers", "swap_horiz", "billing_transfer"),
        ("Reports", "fact_check", "billing_actreport"),
    ]),
    ("Set-up", [
        ("Deployments", "deployed_code", "tasks_deployment"),
        ("Rate cards", "sell", "billing_ratecard"),
        ("Prices", "payments", "billing_price"),
        ("Users", "person", "auth_user"),
        ("Groups", "group", "auth_group"),
        ("Failed logins", "lock", "axes_accessattempt"),
        ("Logins", "login", "axes_accesslog"),
    ]),
]  # fmt: skip


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """The home, then the groups of the menu, each with the lists this user may see."""
    groups = [(title, [_item(*item) for item in items if _may_see(request, item[2])]) for title, items in MENU]
    seen = [(title, items) for title, items in groups if items]
    home = {"items": [{"title": "Home", "icon": "home", "link": reverse("admin:index")}]}
    return [home, *({"title": title, "separator": True, "items": items} for title, items in seen)]


def named(address: str) -> str:
    """What the menu calls the list at this address, if it has it."""
    screens = {_address(screen): title for _, items in MENU for title, _, screen in items}
    return screens.get(address, "")


def _address(screen: str) -> str:
    return reverse(f"admin:{screen}_changelist")


def _item(title: str, icon: str, screen: str) -> dict[str, Any]:
    return {"title": title, "icon": icon, "link": _address(screen)}


def _may_see(request: HttpRequest, screen: str) -> bool:
    app, _, model = screen.partition("_")
    return request.user.has_perm(f"{app}.view_{model}") or request.user.has_perm(f"{app}.change_{model}")
