"""The OpenAPI document, given out: `/v1/openapi.json` for programs, `/docs/` for people."""

import hashlib
import json
from functools import cache
from typing import Any

from csp.constants import NONE
from csp.decorators import csp_replace
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

SECONDS = 300


class _JsonAlways(DefaultContentNegotiation):
    """A browser that prefers a page gets the document all the same."""

    def select_renderer(self, request: Request, renderers: Any, format_suffix: Any = None) -> Any:
        return renderers[0], renderers[0].media_type


class DocumentView(APIView):
    """The document of this service, for everybody."""

    http_method_names = ["get", "head"]
    content_negotiation_class = _JsonAlways
    schema = None

    def get(self, request: Request) -> HttpResponse:
        """The document; 304 when the client has it."""
        text = _document(settings.PUBLIC_URL)
        etag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
        seen = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
        response = HttpResponse(status=304) if etag in seen else HttpResponse(text, content_type="application/json")
        response["ETag"] = etag
        patch_cache_control(response, public=True, max_age=SECONDS)
        return response


@cache
def _document(server: str) -> bytes:
    document = SchemaGenerator().get_schema(public=True)
    return json.dumps(document | {"servers": [{"url": server}]}, separators=(",", ":")).encode()


@require_safe
@csp_replace({"form-action": [NONE]})
def docs(request: HttpRequest) -> HttpResponse:
    """The document as pages to read and to try. No form of theirs is sent."""
    return render(request, "docs.html")
