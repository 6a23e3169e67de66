"""Reruns of a task: charged at today's prices, or free, with all that would refuse them said before."""

from decimal import Decimal
from typing import Any

from billing.admin.account_page import spent_this_month
from billing.admin.acts import Done, agreed
from billing.admin.screens import Table, amount
from billing.exceptions import ChangedSince, Refusal, SpendCapReached
from tasks import lifecycle, submission
from tasks.admin.task_acts.moves import TaskAct, balances_of
from tasks.exceptions import TooManyPendingTasks
from tasks.identifiers import public_id
from tasks.models import Task
from tasks.statuses import FINAL
from tasks.submission import stored_key

UNSEEN = "It changed since you looked: no price was shown, so none was agreed. Nothing was submitted."


class Room:
    """What the accounts and deployments of these tasks have room for; each rerun takes its part of it."""

    def __init__(self, rows: list[Task]) -> None:
        self.accounts = balances_of(rows)
        self.available = {pk: account.available for pk, account in self.accounts.items()}
        self.pending = {pk: account.pending_limit - account.pending for pk, account in self.accounts.items()}
        self.places = submission.places({task.deployment_id for task in rows})

    def why_not(self, task: Task, quoted: Decimal | Refusal) -> str:
        """Why the task cannot be rerun at this price, in a sentence, or nothing."""
        if isinstance(quoted, Refusal):
            return quoted.message
        account, available = self.accounts[task.account_id], self.available[task.account_id]
        if self.places.get(task.deployment_id) == 0:
            return f"its deployment is full. {TooManyPendingTasks.message}"
        if self.pending[task.account_id] <= 0:
            return TooManyPendingTasks.message
        if quoted and available - quoted < -account.credit_limit:
            return f"the available credits, {available:f}, do not cover the quote, {quoted:f}."
        spent = spent_this_month(account) + account.available - available + quoted
        capped = quoted and account.monthly_cap is not None and spent > account.monthly_cap
        return SpendCapReached.message if capped else ""

    def take(self, task: Task, quoted: Decimal) -> None:
        self.available[task.account_id] -= quoted
        self.pending[task.account_id] -= 1
        if task.deployment_id in self.places:
            self.places[task.deployment_id] -= 1


class Rerun(TaskAct):
    name, title, permission, icon = "rerun", "Rerun task", "tasks.rerun_task", "replay"
    note = "Submits the task again as a new one, at today's prices: the account's credits are held and charged anew."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def facts(self, rows: list[Task]) -> Table:
        """The balance after is that after the holds of all the rows above it, too."""
        quotes, room, shown = submission.requoted(rows), Room(rows), []
        for task in rows:
            quoted, before = quotes[task.pk], room.available[task.account_id]
            no = room.why_not(task, quoted)
            if not (no or isinstance(quoted, Refusal)):
                room.take(task, quoted)
            price = None if isinstance(quoted, Refusal) else quoted
            then = f"Refused: {no}" if no else f"A new task is queued and holds {quoted:f}."
            numbers = [task.quoted, price, before, room.available[task.account_id]]
            shown.append([str(task), str(task.account), *map(amount, numbers), then])
        headers = ["Task", "Account", "Quoted then", "Quote today", "Available now", "Available after the hold", "Then"]
        return Table("", headers, shown)

    def seen(self, rows: list[Task]) -> dict[str, str]:
        """The price and how many reruns there are; nothing of a row that has no price."""
        quotes, reruns = submission.requoted(rows), submission.reruns_of(rows)
        priced = {pk: quoted for pk, quoted in quotes.items() if isinstance(quoted, Decimal)}
        return {str(pk): f"{quoted:f} {reruns[pk]}" for pk, quoted in priced.items()}

    def hindrance(self, row: Task) -> str:
        return Room([row]).why_not(row, submission.requoted([row])[row.pk])

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        price, reruns = _agreed(row, data["seen"])
        key = stored_key("admin", "rerun", str(row.account_id), str(row.pk), str(data["key"]))
        again = lifecycle.rerun(
            row.pk,
            account_id=row.account_id,
            api_key_id=None,
            actor=by,
            because=data["reason"],
            agreed=price,
            reruns=reruns,
            idempotency_key=key,
            fingerprint=key,
        )
        return Done(f"Submitted again as {public_id(again.task_id)}.")


def _agreed(row: Task, seen: str | None) -> tuple[Decimal, int]:
    """The price and the reruns that the page showed. Raises the refusal that it showed instead, or ChangedSince when
    there is none any more: nothing was agreed."""
    price, _, reruns = (seen or "").partition(" ")
    credits_ = agreed(price)
    if credits_ is None or not (reruns.isascii() and reruns.isdecimal() and len(reruns) < 10):
        quoted = submission.requoted([row])[row.pk]
        raise quoted if isinstance(quoted, Refusal) else ChangedSince(UNSEEN)
    return credits_, int(reruns)


class RerunFree(TaskAct):
    name, title, permission, icon = "rerun_free", "Rerun free of charge", "tasks.rerun_task", "redeem"
    note = "Submits the task again as a new one at our expense: nothing is held or charged, whatever it uses. "
    note += "A rerun of the new task is charged again."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def facts(self, rows: list[Task]) -> Table:
        quotes, room, shown = submission.requoted(rows), Room(rows), []
        for task in rows:
            quoted = quotes[task.pk]
            free = quoted if isinstance(quoted, Refusal) else Decimal(0)
            no = room.why_not(task, free)
            if not (no or isinstance(free, Refusal)):
                room.take(task, free)
            shown.append([str(task), str(task.account), *_at_our_expense(quoted, no)])
        return Table("", ["Task", "Account", "Quote today", "Held and charged", "Then"], shown)

    def seen(self, rows: list[Task]) -> dict[str, str]:
        return {str(pk): f"0 {reruns}" for pk, reruns in submission.reruns_of(rows).items()}

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        _, reruns = _agreed(row, data["seen"])
        key = stored_key("admin", "rerun_free", str(row.account_id), str(row.pk), str(data["key"]))
        said = {"reason": data["reason"], "reruns": reruns, "idempotency_key": key, "fingerprint": key}
        again = lifecycle.rerun_free(row.pk, by=by, **said)
        return Done(f"Submitted again, free of charge, as {public_id(again.task_id)}.")


def _at_our_expense(quoted: Decimal | Refusal, no: str) -> list[str]:
    if no or isinstance(quoted, Refusal):
        return [amount(None), amount(None), f"Refused: {no}"]
    return [amount(quoted), amount(Decimal("0.0000")), "A new task is queued and costs the account nothing."]
