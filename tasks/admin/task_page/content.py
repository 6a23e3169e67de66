"""What a task was given and made, to be read: only for whoever may view content."""

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import TextField
from django.db.models.functions import Cast
from django.urls import reverse

from billing.admin.screens import SHOWN
from tasks.admin.task_page.images import Image, images_in
from tasks.admin.task_page.request import as_text
from tasks.models import Run, Task

PARTS = ("input", "output", "text", "request")


@dataclass(frozen=True)
class Content:
    """A text, the images in it, and where all of it can be had as a file."""

    name: str
    title: str
    text: str
    file: str = ""
    left_out: int = 0
    images: list[Image] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.text.count("\n") + 1

    @property
    def folds(self) -> bool:
        return self.lines > 16 or len(self.text) > 1600


def of_json(task: Task, name: str, title: str, value: Any) -> Content:
    """JSON in lines of its own, with its images as images; a text as the text that it is."""
    seen, images = images_in(value)
    text = seen if isinstance(seen, str) else in_lines(seen)
    return Content(name, title, text[:SHOWN], _file(task, name), len(text) - SHOWN, images)


def of_written(task: Task, name: str, title: str, text: str) -> Content:
    """JSON that is read here first; what is nested too deep to be read is shown as it was written."""
    try:
        return of_json(task, name, title, json.loads(text))
    except RecursionError:
        return of_text(task, name, title, text[:SHOWN], length=len(text))


def of_text(task: Task, name: str, title: str, text: str, *, length: int) -> Content:
    """The beginning of a text that is so long."""
    return Content(name, title, text, _file(task, name), length - len(text))


def in_lines(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def whole(task_id: UUID, name: str) -> str | None:
    """All of a part of the task, JSON as it was written; None where there is none."""
    if name == "text":
        return Run.objects.filter(task_id=task_id).order_by("-number").values_list("partial_text", flat=True).first()
    if name == "request":
        task = Task.objects.filter(pk=task_id, content_deleted_at=None).first()
        return as_text(task) if task else None
    text = Task.objects.annotate(text=Cast(name, TextField())).filter(pk=task_id)
    return text.values_list("text", flat=True).first()


def _file(task: Task, name: str) -> str:
    return reverse("admin:tasks_task_content", args=[task.pk, name])
