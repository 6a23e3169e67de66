"""A form acts once: reloaded, clicked twice or sent from two windows at the same moment, it has one effect."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from django import forms
from django.db import IntegrityError, connection, transaction

from billing.models import SentForm

SHOWN_ONCE = " A secret is shown only once."
ALONE = "SELECT pg_advisory_lock(hashtextextended(%s, 0))"
NO_LONGER_ALONE = "SELECT pg_advisory_unlock(hashtextextended(%s, 0))"


class Repeated(Exception):
    """The form was sent before and acted then: this time nothing was done."""

    def __init__(self) -> None:
        super().__init__("this form was sent before. It was done then, and is not done again.")


class OnceForm(forms.Form):
    """A form with a key that makes it sent twice the same as once."""

    key = forms.UUIDField(widget=forms.HiddenInput, initial=uuid4)


def keyed(name: str, key: UUID, subject: Any) -> str:
    """The key of what this form does to this subject."""
    return f"{name}:{key}:{subject}"


@contextmanager
def once(key: str) -> Iterator[None]:
    """Act for this key alone, and `remember` it beside the history. Raises Repeated when somebody did before.

    The lock is the session's, because the verbs of a task own their transaction: whoever sends the form meanwhile waits
    for the end of the act and then finds its key.
    """
    _run(ALONE, key)
    try:
        if SentForm.objects.filter(key=key).exists():
            raise Repeated
        yield
    finally:
        _run(NO_LONGER_ALONE, key)


def remember(key: str) -> None:
    """The form has acted. Raises Repeated for a key that is taken, which takes back what its transaction did."""
    try:
        with transaction.atomic():
            SentForm.objects.create(key=key)
    except IntegrityError as error:
        raise Repeated from error


def _run(statement: str, key: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [key])
