"""What every endpoint has in common: a Bearer key, its scopes, its rate, strict JSON."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSetMixin

from tasks.api import parameters
from tasks.api.authentication import BearerAuthentication, HasScope
from tasks.api.errors import RateLimited
from tasks.api.parsers import StrictJSONParser
from tasks.api.rates import Rate, count, look

STREAM = "text/event-stream"


class Endpoint(APIView):
    """A resource of the caller's account. Any one of the scopes named for reading or writing is enough.

    A query is refused, but for the methods or actions of `queried`, which read their own.
    """

    authentication_classes = [BearerAuthentication]
    permission_classes = [HasScope]
    parser_classes = [StrictJSONParser]
    metadata_class = None
    http_method_names = ["get", "post", "delete", "head"]
    reading: tuple[str, ...] = ("tasks:read",)
    writing: tuple[str, ...] = ("tasks:write",)
    rate: Rate | None = None
    queried: tuple[str, ...] = ("list",)
    _uncounted = False

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Know and count the caller, check its scope, and refuse parameters that nobody reads."""
        super().initial(request, *args, **kwargs)
        if getattr(self, "action", request.method.lower()) not in (None, *self.queried):
            parameters.read(request.query_params, ())

    def perform_authentication(self, request: Request) -> None:
        """Know the caller, and count the request, if it is not for a stream: that has caps of its own."""
        super().perform_authentication(request)
        if request.user is not None:
            self._uncounted = request.method == "GET" and request.accepted_renderer.media_type == STREAM
            how = look if self._uncounted else count
            self.meet(how, request.user.api_key_id, request.user.requests_per_minute)

    def meet(self, how: Callable[[UUID, int], Rate | None], api_key_id: UUID, limit: int) -> None:
        """Hold the key to its rate; the answer will say where it stands. Raises RateLimited."""
        self.rate = how(api_key_id, limit)
        if self.rate and not self.rate.passed:
            raise RateLimited(limit=limit, wait=self.rate.reset)

    def _counted(self, request: Request, response: Any) -> Any:
        """The response, counted after all when it is no stream; over the limit a refusal in its place."""
        if not self._uncounted or response.streaming:
            return response
        try:
            self.meet(count, request.user.api_key_id, request.user.requests_per_minute)
        except RateLimited as refused:
            return self.handle_exception(refused)
        return response

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Response:
        response = self._counted(request, response)
        response = super().finalize_response(request, response, *args, **kwargs)
        for name, value in (self.rate.headers if self.rate else {}).items():
            response[name] = value
        return response


class Resource(ViewSetMixin, Endpoint):
    """An endpoint whose methods are actions of one resource."""
