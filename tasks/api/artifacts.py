"""What a task made, given out: `/v1/tasks/{id}/artifacts/{name}` leads to a link, and the link to the file.

The link is signed, names one artifact, is good for ARTIFACT_LINK_SECONDS and needs no key: it may be handed to a
browser. The file comes as an attachment that no browser guesses the type of, whole or from one range of its bytes.
"""

import base64
import logging
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from django.conf import settings
from django.core import signing
from django.core.files.storage import storages
from django.db.models.functions import Now
from django.http import HttpResponse, HttpResponseBase, HttpResponseRedirect, StreamingHttpResponse
from django.urls import reverse
from django.utils.http import content_disposition_header
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from billing.exceptions import Refusal
from tasks.api.endpoint import Endpoint
from tasks.artifacts import NAME
from tasks.identifiers import parse_id
from tasks.models import Artifact

logger = logging.getLogger(__name__)

SALT = "tasks.artifacts"
READ = 2**16
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))")


class NoArtifact(Refusal):
    code, status, message = "not_found", 404, "There is no such artifact."


class Gone(Refusal):
    code, status = "gone", 410


class BadLink(Refusal):
    code, status, message = "forbidden", 403, "This link is not one that was given out here."


class FileUnavailable(Refusal):
    code, status, message, retryable, retry_after = "unavailable", 503, "The file cannot be read now.", True, 5


class _OneAnswer(DefaultContentNegotiation):
    """A client that accepts images only is led to its image all the same."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class ArtifactView(Endpoint):
    """An artifact of a task of the caller's account; another account's does not exist."""

    content_negotiation_class = _OneAnswer

    def get(self, request: Request, task_id: str, name: str) -> HttpResponse:
        """Lead to a signed link, made for this request: 302. An expired artifact is 410."""
        if not NAME.fullmatch(name):
            raise NoArtifact
        owned = Artifact.objects.filter(task_id=parse_id(task_id), task__account_id=request.user.account_id)
        response = HttpResponseRedirect(_link_to(_current(owned.filter(name=name))))
        response["Cache-Control"] = "no-store"
        return response


class DownloadView(APIView):
    """The file behind a signed link."""

    http_method_names = ["get", "head"]
    authentication_classes: list[Any] = []
    permission_classes: list[Any] = []
    content_negotiation_class = _OneAnswer

    def get(self, request: Request, signed: str) -> HttpResponseBase:
        """The file, or one range of its bytes."""
        return _answer(request, _linked(signed))


def _link_to(artifact: Artifact) -> str:
    """Where the file is given out: the place to name a storage's own signed links, should one have better."""
    return reverse("download", args=[signing.dumps(artifact.pk, salt=SALT)])


def _linked(signed: str) -> Artifact:
    try:
        artifact_id = signing.loads(signed, salt=SALT, max_age=settings.ARTIFACT_LINK_SECONDS)
    except signing.SignatureExpired as error:
        raise Gone("This link has expired; ask the task's artifact for a new one.") from error
    except signing.BadSignature as error:
        raise BadLink from error
    return _current(Artifact.objects.filter(pk=artifact_id))


def _current(found: Any) -> Artifact:
    """The artifact, unless it has expired by the database's clock. Raises NoArtifact or Gone."""
    artifact = found.annotate(now=Now()).first()
    if artifact is None:
        raise NoArtifact
    if artifact.expires_at <= artifact.now:
        raise Gone("The artifact has expired or was deleted.")
    return artifact


def _answer(request: Request, artifact: Artifact) -> HttpResponseBase:
    seen = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    if seen == ["*"] or f'"{artifact.sha256}"' in seen:
        return _with_headers(HttpResponse(status=304), artifact)
    first, last = 0, artifact.size - 1
    asked = _range(request, artifact)
    if asked is not None:
        first, last = asked
        if first > last:
            unsatisfied = {"Content-Range": f"bytes */{artifact.size}"}
            return _with_headers(HttpResponse(status=416, headers=unsatisfied), artifact)
    response = _with_headers(_body(request, artifact, first, last), artifact)
    response["Content-Length"] = str(last - first + 1)
    if asked is not None:
        response.status_code = 206
        response["Content-Range"] = f"bytes {first}-{last}/{artifact.size}"
    return response


def _range(request: Request, artifact: Artifact) -> tuple[int, int] | None:
    """The first and last byte asked for; the first after the last where there are none; None is the whole file."""
    found = RANGE.fullmatch(request.headers.get("Range", ""))
    changed = request.headers.get("If-Range", f'"{artifact.sha256}"') != f'"{artifact.sha256}"'
    if found is None or changed or request.method != "GET":
        return None
    first, last, suffix = (None if digits is None else int(digits) for digits in found.groups())
    if suffix is not None:
        return (max(0, artifact.size - suffix), artifact.size - 1) if suffix else (artifact.size, artifact.size - 1)
    if last is not None and last < first:
        return None
    if first >= artifact.size:
        return artifact.size, artifact.size - 1
    return first, artifact.size - 1 if last is None else min(last, artifact.size - 1)


def _body(request: Request, artifact: Artifact, first: int, last: int) -> HttpResponseBase:
    if request.method == "HEAD":
        return HttpResponse()
    try:
        file = storages["artifacts"].open(artifact.key, "rb")
        file.seek(first)
        return StreamingHttpResponse(_Pieces(file, last - first + 1))
    except Exception as error:  # each storage has its own, and some ask only when they are read
        logger.exception("the file of an artifact cannot be read")
        raise FileUnavailable from error


class _Pieces:
    """So many bytes of an open file, a few at a time; whoever sends them closes it, sent or not.

    The first are read at once: what cannot be read is known before anything is sent.
    """

    def __init__(self, file: BinaryIO, left: int) -> None:
        self.file, self.left = file, left
        self.next = self._read()

    def __iter__(self) -> Iterator[bytes]:
        while self.next:
            yield self.next
            self.next = self._read()

    def _read(self) -> bytes:
        piece = self.file.read(min(READ, self.left))
        self.left -= len(piece)
        return piece

    def close(self) -> None:
        self.file.close()


def _with_headers(response: HttpResponseBase, artifact: Artifact) -> HttpResponseBase:
    response["ETag"] = f'"{artifact.sha256}"'
    response["Cache-Control"] = "private, no-transform"
    response["Accept-Ranges"] = "bytes"
    response["Content-Type"] = artifact.content_type
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=artifact.name)
    response["X-Content-Type-Options"] = "nosniff"
    digest = base64.b64encode(bytes.fromhex(artifact.sha256)).decode()
    response["Repr-Digest"] = f"sha-256=:{digest}:"
    return response
