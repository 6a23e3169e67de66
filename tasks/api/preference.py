"""`Prefer: wait=N` (RFC 7240): answer when the task has ended or changed, at the latest after N seconds."""

import re
import time
from dataclasses import replace
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection
from django.http import HttpResponse
from rest_framework.request import Request

from billing.statements import one
from tasks.api import answers
from tasks.api.errors import Unavailable
from tasks.api.hub import hub
from tasks.api.places import places
from tasks.submission import Submitted

LONGEST = 60
MAX_HEADER = 1000
PREFERENCE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')
WAIT = re.compile(r'\s*wait\s*=\s*(?:([0-9]{1,9})|"([0-9]{1,9})")\s*(?:;.*)?', re.IGNORECASE)
STATE = "SELECT seq, completed_at IS NOT NULL FROM tasks_task WHERE id = %(id)s"


def preferred(request: Request) -> int | None:
    """The seconds that the client would wait, at most 60; None without a preference that can be read."""
    header = request.headers.get("Prefer", "")
    if len(header) > MAX_HEADER:
        return None
    found = (WAIT.fullmatch(preference) for preference in PREFERENCE.findall(header))
    first = next((match for match in found if match), None)
    return min(int(first[1] or first[2]), LONGEST) if first else None


def until_final(task_id: UUID, key_id: UUID, *, seconds: float, seen: int | None = None) -> None:
    """Wait until the task is final, or its seq is not the one that was seen, or the time is over, or the web drains.

    It holds no connection meanwhile. Raises Unavailable when too many wait.
    """
    ends = time.monotonic() + seconds
    with places.taken(key_id), hub.watch(task_id, key_id) as watch:
        while not hub.draining and (left := ends - time.monotonic()) > 0:
            state = one(STATE, {"id": task_id})
            let_go()
            if state is None or state[1] or seen not in (None, state[0]):
                return
            watch.seen = (state[0],)
            watch.wait(left)


def applied(response: HttpResponse, patience: int | None) -> HttpResponse:
    """Say that the preference was honoured."""
    if patience is not None:
        response["Preference-Applied"] = f"wait={patience}"
    return response


def the_new_task(request: Request, submitted: Submitted) -> HttpResponse:
    """The answer to a submission, with the task as it is after the wait; at once when there is no place to wait."""
    patience = preferred(request)
    if not patience:
        return applied(answers.the_new_task(submitted), patience)
    try:
        until_final(submitted.task_id, request.user.api_key_id, seconds=patience)
        submitted = replace(submitted, json=answers.text_of(submitted.task_id))
    except (Unavailable, OperationalError, InterfaceError):
        return answers.the_new_task(submitted)
    return applied(answers.the_new_task(submitted), patience)


def let_go() -> None:
    """Give the connection back before a wait; inside a transaction it is not ours to give."""
    if not connection.in_atomic_block:
        connection.close()
