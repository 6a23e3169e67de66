"""The door of an account: closed, it refuses every request; open, it answers again."""

from typing import Any

from django.db.models import Q, QuerySet
from django.urls import reverse
from django.utils.html import format_html
from unfold.enums import ActionVariant

from billing.admin.account_acts import AccountAct
from billing.admin.acts import Declined, Done
from billing.admin.screens import Table
from billing.models import Account, ApiKey


class Door(AccountAct):
    permission = "billing.disable_account"

    def facts(self, rows: list[Account]) -> Table:
        """Whom it meets: keys that are refused or answered, and tasks that go on."""
        headers = ["Account", "Its keys", "Its test keys", "Queued tasks", "Running tasks"]
        return Table("", headers, [_met(row) for row in rows])


class Disable(Door):
    name, title, icon = "disable", "Disable account", "block"
    variant = ActionVariant.DANGER
    note = "Every request with a key of the account, or of its test account, is answered 403 from now on, reads too. "
    note += "Tasks that are queued or running go on, are charged, and their callbacks are sent. To stop them as well, "
    note += "follow the number of its tasks and pause or cancel them there."

    def suits(self, row: Account) -> bool:
        return row.is_active

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        if not _with_its_twin(row).filter(is_active=True).update(is_active=False):
            raise Declined("it was disabled before.")
        return Done("Disabled the account.")


class Enable(Door):
    name, title, icon = "enable", "Enable account", "check_circle"
    note = "Requests with the keys of the account and of its test account are answered again."

    def suits(self, row: Account) -> bool:
        return not row.is_active

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        if not _with_its_twin(row).filter(is_active=False).update(is_active=True):
            raise Declined("it was enabled before.")
        return Done("Enabled the account.")


def _with_its_twin(account: Account) -> QuerySet[Account]:
    return Account.objects.filter(Q(pk=account.pk) | Q(twin_of=account.pk))


def _met(account: Account) -> list[Any]:
    valid = ApiKey.objects.filter(revoked_at=None)
    queued, running = account.pending - account.running, account.running
    return [
        account.name,
        valid.filter(account=account).count(),
        valid.filter(account__twin_of=account).count(),
        tasks_link(account, "queued", queued),
        tasks_link(account, "running", running),
    ]


def tasks_link(account: Account, status: str, count: int) -> Any:
    """A number of tasks that leads to them."""
    if not count:
        return "0"
    address = f"{reverse('admin:tasks_task_changelist')}?account={account.pk}&status={status}"
    return format_html('<a href="{}" class="text-link">{}</a>', address, count)
