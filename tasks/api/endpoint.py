"""What every endpoint has in common: a Bearer key, its scopes, strict JSON."""

from rest_framework.viewsets import ViewSet

from tasks.api.authentication import BearerAuthentication, HasScope
from tasks.api.parsers import StrictJSONParser


class Endpoint(ViewSet):
    """A resource of the caller's account."""

    authentication_classes = [BearerAuthentication]
    permission_classes = [HasScope]
    parser_classes = [StrictJSONParser]
