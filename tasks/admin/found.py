"""How rows are found by the task they belong to, and what of a task only some may see."""

from typing import Any
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from billing.admin.account_find import named
from billing.admin.screens import link
from tasks.identifiers import PREFIX, parse_id, public_id

CONTENT = "tasks.view_content"
# What shows what a task cost, and what that left of the account's credits.
MONEY = ("billing.view_charge", "billing.view_transfer")
# How many accounts a part of a name may mean.
ACCOUNTS = 100


def task_id_of(text: str) -> UUID | None:
    """The id in any spelling: public, public without its prefix, or a UUID."""
    text = text.strip().lower()
    try:
        return parse_id(text) or parse_id(f"{PREFIX}_{text}") or UUID(text)
    except ValueError:
        return None


def task_link(task_id: UUID | None) -> SafeString | str:
    return link("tasks_task", task_id, public_id(task_id)) if task_id else link("tasks_task", None, "")


class FoundByTask:
    """A list that is searched by a task's id, and by its account's name where it has one."""

    search_fields = ("pk",)
    search_help_text = "Task id"
    task_column = "task_id"

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        term = search_term.strip().replace("\x00", "")
        return (self.found(queryset, term) if term else queryset), False

    def found(self, queryset: QuerySet, term: str) -> QuerySet:
        task_id = task_id_of(term)
        return queryset.filter(**{self.task_column: task_id}) if task_id else self.found_by_words(queryset, term)

    def found_by_words(self, queryset: QuerySet, term: str) -> QuerySet:
        return queryset.none()


class FoundByTaskOrAccount(FoundByTask):
    search_help_text = "Task id or account"

    def found_by_words(self, queryset: QuerySet, term: str) -> QuerySet:
        return queryset.filter(of_accounts(term))


def of_accounts(name: str) -> Q:
    """Rows of the accounts of this name, asked for first so that the rows' own index finds them."""
    return Q(account__in=accounts_named(name))


def accounts_named(name: str) -> list[UUID]:
    """The newest accounts in whose names words begin so."""
    return list(named(name).order_by("-id").values_list("pk", flat=True)[:ACCOUNTS])


def of_content(request: HttpRequest, *columns: tuple[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A table's columns that are shown only to whoever may view content."""
    return columns if request.user.has_perm(CONTENT) else ()


class HidesContent:
    """A page that shows customers' content only to whoever may view it."""

    content: tuple[str, ...] = ()

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> list[tuple[Any, dict[str, Any]]]:
        fieldsets = super().get_fieldsets(request, obj)
        if request.user.has_perm(CONTENT):
            return fieldsets
        seen = [(name, [f for f in options["fields"] if f not in self.content]) for name, options in fieldsets]
        return [(name, {"fields": fields}) for name, fields in seen if fields]
