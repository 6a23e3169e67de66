"""`/v1/webhook_endpoints`: the URLs of an account that are told of its events."""

from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from tasks import endpoints
from tasks.api import parameters
from tasks.api.authentication import check_scope
from tasks.api.endpoint import Resource
from tasks.api.requests import body_of
from tasks.api.schema_endpoints import CreateWebhookEndpoint, WebhookEndpointSerializer
from tasks.api.serializers import Nothing
from tasks.identifiers import ENDPOINT, parse_id, public_id

SHOWS = {"task": "tasks:read", "account": "billing:read"}  # what who is told of an event could have read
CREATE, NOTHING = CreateWebhookEndpoint(), Nothing()


class WebhookEndpointViewSet(Resource):
    """Webhook endpoints of the caller's account."""

    lookup_field = "endpoint_id"
    lookup_value_regex = "[^/]+"

    def create(self, request: Request) -> Response:
        """Tell a URL of events from now on. A key passes on what it may read itself, and no more."""
        wanted = CREATE.run_validation(body_of(request))
        for scope in sorted({SHOWS[event.partition(".")[0]] for event in wanted["events"]}):
            check_scope(request.user.scopes, [scope])
        made = endpoints.add(request.user.account_id, **wanted)
        where = f"/v1/webhook_endpoints/{public_id(made.pk, prefix=ENDPOINT)}"
        return Response(WebhookEndpointSerializer(made).data, status=201, headers={"Location": where})

    def list(self, request: Request) -> Response:
        """All of them, oldest first; an account has ten at the most."""
        parameters.read(request.query_params, set())
        shown = WebhookEndpointSerializer(endpoints.of(request.user.account_id), many=True).data
        return Response({"object": "list", "data": shown, "next_cursor": None, "has_more": False})

    def retrieve(self, request: Request, endpoint_id: str) -> Response:
        """One of them."""
        found = endpoints.find(request.user.account_id, parse_id(endpoint_id, prefix=ENDPOINT))
        return Response(WebhookEndpointSerializer(found).data)

    def destroy(self, request: Request, endpoint_id: str) -> HttpResponse:
        """Tell it nothing any more."""
        NOTHING.run_validation(body_of(request))
        endpoints.delete(request.user.account_id, parse_id(endpoint_id, prefix=ENDPOINT))
        return HttpResponse(status=204)
