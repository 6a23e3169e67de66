"""Logins: who came in, who did not, and who is locked out."""

from typing import Any

from axes.models import AccessAttempt, AccessLog
from axes.utils import reset
from django.conf import settings
from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from billing.admin.acts import Act, Acting, Done
from billing.admin.screens import Screen, Table, label, table, when


def _locked(attempt: Any) -> bool:
    ends = attempt.attempt_time + settings.AXES_COOLOFF_TIME
    many = attempt.tries >= settings.AXES_FAILURE_LIMIT or attempt.from_there >= settings.LOGIN_ADDRESS_TRIES
    return many and ends > timezone.now()


def _tries(attempts: QuerySet, *by: str) -> Coalesce:
    total = attempts.values("ip_address", *by).annotate(total=Sum("failures_since_start")).values("total")
    return Coalesce(Subquery(total), 0)


class Unlock(Act):
    name, title, icon = "unlock", "Unlock", "lock_open"
    permission = "axes.delete_accessattempt"
    note = "The failed tries of this name from this address are forgotten: the next login is tried as the first."

    def subject(self, row: AccessAttempt) -> str:
        return f"{row.username} from {row.ip_address}"

    def facts(self, rows: list[AccessAttempt]) -> Table:
        return table("", rows, ("Name", "username"), ("Address", "ip_address"), ("Tries", "tries"), ("Last", _last))

    def perform(self, row: AccessAttempt, *, by: str, data: dict[str, Any]) -> Done:
        reset(username=row.username, ip=row.ip_address)
        return Done(f"Unlocked {self.subject(row)}.")


def _last(attempt: AccessAttempt) -> str:
    return when(attempt.attempt_time)


@admin.register(AccessAttempt)
class FailedLoginScreen(Acting, Screen):
    acts = (Unlock(),)
    list_display = ("username", "ip_address", "state", "tries_", "last")
    search_fields = ("username__exact", "ip_address__exact")
    search_help_text = "Name or address, whole"
    heavy = ("get_data", "post_data")
    fields = (("username", "ip_address", "state"), ("tries_", "last"), ("user_agent", "path_info"))

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        """With the tries of each name from its address, whatever browser they said they were, and all from there."""
        there = AccessAttempt.objects.filter(ip_address=OuterRef("ip_address")).order_by()
        alike = there.filter(username=OuterRef("username"))
        return super().get_queryset(request).annotate(tries=_tries(alike, "username"), from_there=_tries(there))

    @admin.display(description="status")
    def state(self, attempt: Any) -> str:
        return label("locked", "danger") if _locked(attempt) else label("may try again", "info")

    @admin.display(description="failed tries")
    def tries_(self, attempt: Any) -> int:
        return attempt.tries

    @admin.display(description="last try")
    def last(self, attempt: AccessAttempt) -> str:
        return _last(attempt)

    def _back(self, rows: list[Any]) -> HttpResponseRedirect:
        """To the list: what was unlocked has no page any more."""
        return HttpResponseRedirect(reverse("admin:axes_accessattempt_changelist"))


@admin.register(AccessLog)
class LoginScreen(Screen):
    list_display = ("username", "ip_address", "came", "went")
    search_fields = ("username__exact", "ip_address__exact")
    search_help_text = "Name or address, whole"
    fields = (("username", "ip_address"), ("came", "went"), "user_agent")

    @admin.display(description="logged in")
    def came(self, entry: AccessLog) -> str:
        return when(entry.attempt_time)

    @admin.display(description="logged out")
    def went(self, entry: AccessLog) -> str:
        return when(entry.logout_time)
