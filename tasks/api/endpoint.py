"""What every endpoint has in common: a Bearer key, its scopes, its rate, strict JSON."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from tasks.api.authentication import BearerAuthentication, HasScope
from tasks.api.errors import RateLimited
from tasks.api.parsers import StrictJSONParser
from tasks.api.rates import Rate, count, look

STREAM = "text/event-stream"


class Endpoint(APIView):
    """A resource of the caller's account. Any one of the scopes named for reading or writing is enough."""

    authentication_classes = [BearerAuthentication]
    permission_classes = [HasScope]
    parser_classes = [StrictJSONParser]
    metadata_class = None
    http_method_names = ["get", "post", "delete", "head"]
    reading: tuple[str, ...] = ("tasks:read",)
    writing: tuple[str, ...] = ("tasks:write",)
    rate: Rate | None = None

    def perform_authentication(self, request: Request) -> None:
        """Know the caller, and count the request; a stream does not count, it has caps of its own."""
        super().perform_authentication(request)
        if request.user is not None:
            how = look if request.accepted_renderer.media_type == STREAM else count
            self.meet(how, request.user.api_key_id, request.user.requests_per_minute)

    def meet(self, how: Callable[[UUID, int], Rate | None], api_key_id: UUID, limit: int) -> None:
        """Hold the key to its rate; the answer will say where it stands. Raises RateLimited."""
        self.rate = how(api_key_id, limit)
        if self.rate and not self.rate.passed:
            raise RateLimited(limit=limit, wait=self.rate.reset)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        for name, value in (self.rate.headers if self.rate else {}).items():
            response[name] = value
        return response


class Resource(ViewSetMixin, Endpoint):
    """An endpoint whose methods are actions of one resource."""
