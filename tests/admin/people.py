"""Who uses the admin in tests, and what they click."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.urls import reverse, reverse_lazy

OPEN = reverse_lazy("admin:billing_account_add")
AGAIN = "this form was sent before. It was done then, and is not done again."
GROUPS = ("Operator", "Billing", "Support")


class Person:
    """A browser that is logged in."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.client = Client()
        self.client.force_login(user)

    def again(self) -> "Person":
        """The same person in another window."""
        return Person(self.user)

    def get(self, url: str, **query):
        return self.client.get(url, query)

    def ask(self, row, act: str, *others):
        """The page that asks before an act."""
        return self.client.get(act_url(row, act, *others))

    def do(self, row, act: str, *others, **data):
        """Submit that page as it was served, with these fields filled in; the answer after its redirect."""
        page = self.ask(row, act, *others)
        return self.send(row, act, page, *others, **data) if page.status_code == 200 else page

    def edit(self, row, fields, **options):
        """Submit the row's page as it was served, with these fields."""
        page = self.get(page_url(row))
        return self.client.post(page_url(row), {"shown": page.context["shown"]} | fields, **options)

    def open(self, **data):
        """Submit the page that opens an account."""
        page = self.client.get(OPEN)
        key = {"key": page.context["form"]["key"].value()} if page.status_code == 200 else {}
        return self.client.post(OPEN, key | data, follow=True)

    def send(self, row, act: str, page, *others, **data):
        ids = ",".join(str(each.pk) for each in (row, *others))
        fields = {"reason": "because", "key": page.context["form"]["key"].value(), "ids": ids}
        fields["seen"] = page.context["seen"]
        return self.client.post(act_url(row, act, *others), fields | data, follow=True)


def at_once(times: int, act: Callable[[], Any]) -> list[Any]:
    """What this answers in as many threads, begun together."""
    ready = threading.Barrier(times)

    def run(_):
        try:
            ready.wait()
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(run, range(times)))


def said_again(answers: list) -> list[bool]:
    """Which of the answers say that the form was sent before. Contexts mix in threads; what is sent does not."""
    return sorted(AGAIN in answer.content.decode() for answer in answers)


def root() -> Person:
    return Person(User.objects.create_superuser("root"))


def member(group: str) -> Person:
    """Somebody whose only rights come from a ready-made group."""
    import_module("tasks.migrations.0004_groups").create_groups(apps, None)
    import_module("tasks.migrations.0017_notes_and_endpoints").extend_groups(apps, None)
    import_module("config.migrations.0001_logins").let_operators_unlock(apps, None)
    import_module("tasks.migrations.0020_trials").let_operators_try(apps, None)
    user = User.objects.create_user(f"one-of-{group.lower()}", is_staff=True)
    user.groups.add(Group.objects.get(name=group))
    return Person(user)


def screen(row_or_model) -> str:
    return f"{row_or_model._meta.app_label}_{row_or_model._meta.model_name}"


def page_url(row) -> str:
    return reverse(f"admin:{screen(row)}_change", args=[row.pk])


def list_url(model) -> str:
    return reverse(f"admin:{screen(model)}_changelist")


def act_url(row, act: str, *others) -> str:
    ids = ",".join(str(each.pk) for each in (row, *others))
    return f"{reverse(f'admin:{screen(row)}_{act}')}?ids={ids}"


def told(response) -> list[str]:
    """What the page says happened."""
    return [str(message) for message in response.context["messages"]]


def reported(response) -> list[tuple[str, str, str]]:
    """What a report says of each row: its name, the outcome and a sentence."""
    return sorted(tuple(row[1:]) for row in response.context["original"].rows)


def history(row) -> list[str]:
    """What Django's admin history says about a row, the oldest first."""
    entries = LogEntry.objects.filter(object_id=str(row.pk), content_type__model=row._meta.model_name)
    return [entry.get_change_message() for entry in entries.order_by("pk")]
