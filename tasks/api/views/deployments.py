"""`/v1/deployments`: the catalogue, what clients name as `model`."""

from rest_framework.request import Request
from rest_framework.response import Response

from billing.exceptions import Refusal
from tasks.api import parameters
from tasks.api.catalogue import offered
from tasks.api.endpoint import Resource
from tasks.api.schema_offers import DeploymentSerializer


class NoDeployment(Refusal):
    code, status, message = "not_found", 404, "No active deployment has this name."


class DeploymentViewSet(Resource):
    """What is offered now."""

    reading = ("tasks:read", "tasks:write")
    lookup_field = "deployment"
    lookup_value_regex = "[^/]+"

    def list(self, request: Request) -> Response:
        """Every deployment that takes tasks, with its input's schema and its prices of now."""
        capability = parameters.read(request.query_params, {"capability"}).get("capability")
        shown = DeploymentSerializer(offered(capability=capability), many=True).data
        return Response({"object": "list", "data": shown, "next_cursor": None, "has_more": False})

    def retrieve(self, request: Request, deployment: str) -> Response:
        """One of them."""
        found = [] if "\x00" in deployment else offered(name=deployment)
        if not found:
            raise NoDeployment
        return Response(DeploymentSerializer(found[0]).data)
