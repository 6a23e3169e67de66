"""`POST /v1/quotes`: what a task would cost at most."""

from rest_framework.request import Request
from rest_framework.response import Response

from tasks import submission
from tasks.api.endpoint import Resource
from tasks.api.requests import body_of, wanted_of
from tasks.api.schema_offers import QuoteSerializer


class QuoteViewSet(Resource):
    """Prices of requests. Nothing is written or held."""

    writing = ("tasks:write", "tasks:read")

    def create(self, request: Request) -> Response:
        """Quote the body of a creation: refused as that would be, but for the balance and full queues."""
        quoted = submission.quote(wanted_of(request, body_of(request)))
        return Response(QuoteSerializer(quoted).data)
