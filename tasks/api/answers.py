"""Answers whose JSON is text already: the database built it."""

from uuid import UUID

from django.http import HttpResponse

from billing.statements import one
from tasks.exceptions import TaskNotFound
from tasks.identifiers import public_id
from tasks.submission import Submitted


def as_json(text: str, *, status: int = 200) -> HttpResponse:
    """The text as it is, as JSON."""
    return HttpResponse(text, content_type="application/json", status=status)


def the_task(task_id: UUID, *, status: int = 200) -> HttpResponse:
    """The whole object, as the task is now. Raises TaskNotFound."""
    return as_json(text_of(task_id), status=status)


def text_of(task_id: UUID) -> str:
    """The JSON of the task as it is now. Raises TaskNotFound."""
    row = one("SELECT task_json(%(id)s)", {"id": task_id})
    if row is None or row[0] is None:
        raise TaskNotFound
    text: str = row[0]
    return text


def the_new_task(submitted: Submitted) -> HttpResponse:
    """202 and where the task is; 200 for one that an earlier request with the same key made."""
    response = as_json(submitted.json, status=200 if submitted.replayed else 202)
    response["Location"] = f"/v1/tasks/{public_id(submitted.task_id)}"
    if submitted.replayed:
        response["Idempotent-Replayed"] = "true"
    return response
