"""What to do first in an empty installation. A step goes away when it is done, and all of them with the first end."""

import json
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from billing.statements import one
from tasks.admin.addresses import narrowed

FIRST = {"capability": "text.analyze", "input": {"text": "The half that the issuer keeps."}}
DONE = """
SELECT EXISTS (SELECT FROM tasks_task WHERE completed_at IS NOT NULL) AS ended,
    EXISTS (SELECT FROM tasks_task) AS submitted,
    EXISTS (SELECT FROM billing_account WHERE twin_of_id IS NULL AND granted > 0) AS granted,
    EXISTS (SELECT FROM billing_apikey k JOIN billing_account a ON a.id = k.account_id
        WHERE a.twin_of_id IS NULL AND k.revoked_at IS NULL) AS keyed,
    (SELECT id FROM billing_account WHERE twin_of_id IS NULL ORDER BY id DESC LIMIT 1) AS account
"""


def steps(request: HttpRequest) -> list[dict[str, Any]]:
    """The steps that are left, the next one first."""
    found = one(DONE, {})
    assert found is not None  # noqa: S101 - for the types
    ended, submitted, granted, keyed, account = found
    if ended:
        return []
    if submitted:
        return [_watch()]
    return [*_prepare(request, account, granted=granted, keyed=keyed), _submit(), _watch()]


def _prepare(request: HttpRequest, account: Any, *, granted: bool, keyed: bool) -> list[dict[str, Any]]:
    if account is None:
        told = "A customer with credits and an API key to spend them with. Secrets are shown once: copy the key."
        url = reverse("admin:billing_account_add") if request.user.has_perm("billing.add_account") else ""
        return [{"title": "Open an account", "told": told, "url": url, "button": "Open account"}]
    page = reverse("admin:billing_account_change", args=[account])
    missing = []
    if not granted:
        missing.append(("Grant it credits", "A task is held for before it starts, so an account needs some.", page))
    if not keyed:
        missing.append(("Issue an API key", "What a client names itself by. It is shown once: copy it.", page))
    return [{"title": title, "told": told, "url": url, "button": "To the account"} for title, told, url in missing]


def _submit() -> dict[str, Any]:
    told = "With the key in place of $KEY. The answer is the whole task, with its quote and its links."
    return {"title": "Submit a task", "told": told, "command": command(), "url": reverse("docs"), "button": "API pages"}


def command() -> str:
    """The first task, for a shell."""
    return (
        f"curl -s {settings.PUBLIC_URL}/v1/tasks \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{json.dumps(FIRST)}'"
    )


def _watch() -> dict[str, Any]:
    told = "A worker takes it at once; this page shows it within seconds, and these steps go away when it has ended."
    return {"title": "Watch it here", "told": told, "url": narrowed("tasks_task"), "button": "Tasks"}
