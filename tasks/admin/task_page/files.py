"""What leaves a task's page as a file: its content whole, and the files it made. Browsers are told to run none."""

import logging
from dataclasses import dataclass
from uuid import UUID

from django.core.files.storage import storages
from django.db.models.functions import Now
from django.http import FileResponse, Http404, HttpResponse, HttpResponseBase
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.http import content_disposition_header
from django.utils.timezone import now

from tasks.admin.task_page.content import whole
from tasks.admin.task_page.images import MOST_BYTES, TYPES, raster
from tasks.identifiers import public_id
from tasks.models import Artifact, Task

logger = logging.getLogger(__name__)

MOST = 100
IMAGES = {*TYPES.values(), "image/gif"}


@dataclass(frozen=True)
class Made:
    """An artifact on the page. `thumbnail` is where a browser is given it as an image, if it is one."""

    artifact: Artifact
    size: str
    kept: bool
    url: str
    thumbnail: str


def artifacts_of(task: Task) -> list[Made]:
    """The files of a task, in the order in which it made them."""
    return [_made(task, artifact) for artifact in task.artifacts.order_by("pk")[:MOST]]


def _made(task: Task, artifact: Artifact) -> Made:
    kept = artifact.deleted_at is None and artifact.expires_at > now()
    url = reverse("admin:tasks_task_artifact", args=[task.pk, artifact.name]) if kept else ""
    shown = kept and artifact.content_type in IMAGES and artifact.size <= MOST_BYTES
    return Made(artifact, filesizeformat(artifact.size), kept, url, f"{url}?show" if shown else "")


def content_file(task_id: UUID, name: str) -> HttpResponse:
    """A part of the task's content as a file. Raises Http404 where there is none."""
    text = whole(task_id, name)
    if text is None:
        raise Http404
    ending, kind = ("txt", "text/plain") if name == "text" else ("json", "application/json")
    response = HttpResponse(text, content_type=f"{kind}; charset=utf-8")
    return _safely(response, f"{public_id(task_id)}-{name}.{ending}")


def artifact_file(task_id: UUID, name: str, *, shown: bool) -> HttpResponseBase:
    """A file that a task made, to be saved; or to be shown, where it was asked for and really is an image.

    Raises Http404 for one that is not there, is no longer given out, or is to be shown and cannot be.
    """
    artifact = Artifact.objects.filter(task_id=task_id, name=name, expires_at__gt=Now(), deleted_at=None).first()
    if artifact is None:
        raise Http404
    try:
        file = storages["artifacts"].open(artifact.key, "rb")
    except Exception as error:  # each storage has its own
        logger.exception("the file of an artifact cannot be read")
        raise Http404 from error
    if not shown:
        response = FileResponse(file, content_type="application/octet-stream")
        response["Content-Length"] = str(artifact.size)
        return _safely(response, artifact.name)
    with file:
        content = file.read(MOST_BYTES + 1)
    if (kind := raster(content)) is None or kind != artifact.content_type:
        raise Http404
    return _safely(HttpResponse(content, content_type=kind), artifact.name, inline=True)


def _safely(response: HttpResponseBase, name: str, *, inline: bool = False) -> HttpResponseBase:
    """Headers by which nothing in the file is run here, whatever it says that it is."""
    response["Content-Disposition"] = content_disposition_header(as_attachment=not inline, filename=name)
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    response["Cache-Control"] = "private, no-store"
    return response
