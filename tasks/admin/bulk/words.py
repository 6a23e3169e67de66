"""A bulk action in words: what was chosen, what would happen, how far it is."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.formats import localize

from billing.admin.screens import amount
from billing.models import Account
from tasks.admin.task_list.filters import ALIASES, NEEDS, PARAMETERS, by_name, unreadable
from tasks.admin.task_list.screen import BEFORE
from tasks.bulk_acts import ACTS
from tasks.models import BulkAction

SAID = {
    "code": "failed with {}",
    "capability": "capability {}",
    "model": "model {}",
    "created_from": "created from {}",
    "created_to": "created before {}",
    "ended_from": "ended from {}",
    "ended_to": "ended before {}",
    "q": "search “{}”",
}
COLOURS = {"ready": "", "running": "info", "done": "success", "aborted": "warning", "stopped": "danger"}


# Of an address, what chooses no task: the act, and the list's page and order.
NO_FILTER = {"act", BEFORE, "p", "o", "all"}


def filters_in(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters that choose tasks, by the names of the list, without the others of an address."""
    named = by_name(params)
    return {name: named[name] for name in PARAMETERS if named.get(name)}


def faults_in(params: QueryDict) -> list[str]:
    """What of an address is not understood, in sentences: who dropped it would act on more tasks than were meant."""
    given: dict[str, list[str]] = {}
    for name, values in params.lists():
        if name not in NO_FILTER:
            given.setdefault(ALIASES.get(name, name), []).extend(value.strip() for value in values)
    wrong = unreadable(filters_in(params))
    return [f"{name} {fault}" for name in sorted(given) if (fault := _fault(name, given[name], wrong))]


def _fault(name: str, values: list[str], wrong: list[str]) -> str:
    if name not in PARAMETERS:
        return "is no filter that is known here."
    if not all(values):
        return "is given without a value."
    if len(set(values)) > 1:
        return "is given twice."
    return "has a value that means nothing." if name in wrong else ""


def in_words(filters: Mapping[str, str]) -> str:
    """The filter as a sentence's part."""
    return ", ".join(_said(name, value) for name, value in filters.items()) or "all tasks"


def _said(name: str, value: str) -> str:
    if name == "need" and value in NEEDS:
        return NEEDS[value][0].lower()
    if name == "account":
        return f"account {_name_of(value)}"
    return SAID.get(name, "{}").format(value)


def _name_of(account_id: str) -> str:
    try:
        found = Account.objects.filter(pk=UUID(account_id)).first()
    except ValueError:
        return account_id
    return found.name if found else account_id


def data_in_words(action: BulkAction) -> str:
    """What the act was told."""
    data: dict[str, Any] = action.data
    if action.act == "refund":
        return f"{data['percent']} % of each charge" if "percent" in data else "all that is left of each charge"
    if "minutes" in data:
        return f"{data['minutes']} minutes more"
    if "until" in data:
        return f"until {data['until']}"
    return f"priority {data['priority']}" if "priority" in data else ""


def moved_in_words(action: BulkAction, credits_: Any) -> str:
    """The credits of an act that moves some."""
    moves = ACTS[action.act].moves
    return f"{amount(credits_)} credits {moves}" if moves else ""


def progress_in_words(action: BulkAction) -> str:
    parts = [f"{localize(action.done)} done", f"{localize(action.refused)} refused", f"{localize(action.left)} left"]
    return f"{', '.join(parts)}, of {localize(action.total)}"
