"""How the API is spoken to: under an https PUBLIC_URL by HTTPS only."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from tasks.api import errors

IN_THE_CLEAR = "Send this by HTTPS. What it carried was sent in the clear: have its key replaced."


class HttpsMiddleware:
    """Refuses what comes by plain HTTP to the API: a redirect would lose the body, and hide that the key was shown."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        api = request.path_info == "/v1" or request.path_info.startswith("/v1/")
        if api and settings.SECURE_SSL_REDIRECT and not request.is_secure():
            return JsonResponse(errors.body(request, code="forbidden", message=IN_THE_CLEAR), status=403)
        return self.get_response(request)
