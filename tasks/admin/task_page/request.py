"""The task as a request: a command that submits the same again, and one that reads it, safe to paste into a shell."""

import json
import shlex
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from tasks.models import Task

# A shell hands a program no longer argument than 128 KiB, and a page is no place for one.
MOST = 20_000
KEY = '-H "Authorization: Bearer $API_KEY"'


@dataclass(frozen=True)
class Commands:
    """`again` is empty for whoever may not see the input, or where it is gone; `file` says that it reads one."""

    read: str
    again: str = ""
    file: str = ""


def commands(task: Task, *, content: bool) -> Commands:
    address = f"{settings.PUBLIC_URL}/v1/tasks"
    read = f"curl -s {shlex.quote(f'{address}/{task}')} {KEY}"
    if not content or task.content_deleted_at:
        return Commands(read)
    body, file = as_text(task), f"{task}-request.json"
    to_file = len(body) > MOST
    sent = f"--data-binary @{file}" if to_file else f"--data-raw {shlex.quote(body)}"
    again = f"curl -s {shlex.quote(address)} {KEY} \\\n  -H 'Content-Type: application/json' \\\n  {sent}"
    return Commands(read, again, file if to_file else "")


def as_text(task: Task) -> str:
    """The request's body in ASCII without apostrophes, which end what a shell takes as it is."""
    return json.dumps(_request(task)).replace("'", "\\u0027").replace("\x7f", "\\u007f")


def _request(task: Task) -> dict[str, Any]:
    """What its client asked for. Times that have passed are left out: they would be refused."""
    asked = {
        "model": task.model,
        "input": task.input,
        "metadata": task.metadata or None,
        "client_reference": task.client_reference,
        "callback": {"url": task.callback_url} if task.callback_url else None,
        "priority": task.priority if task.priority != 5 else None,
        "timeout": task.timeout,
        "max_retries": task.max_retries,
        "test_outcome": task.test_outcome,
    }
    return {name: value for name, value in asked.items() if value is not None}
