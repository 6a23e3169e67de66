"""What a browser may do with what we answer: a page runs, shows and asks only what comes from here, the API nothing."""

from csp.constants import HEADER, NONE, SELF
from csp.middleware import CSPMiddleware
from django.http import HttpRequest, HttpResponseBase

# Nothing inline, no style attribute, no eval: templates have none of them, and Alpine is its build that needs none.
PAGE = {
    "default-src": [NONE],
    "script-src": [SELF],
    "style-src": [SELF],
    "img-src": [SELF, "data:"],
    "font-src": [SELF],
    "connect-src": [SELF],
    "form-action": [SELF],
    "base-uri": [NONE],
    "frame-ancestors": [NONE],
    "object-src": [NONE],
}
ANSWER = "default-src 'none'; frame-ancestors 'none'; sandbox"
DEVICES = ("camera", "display-capture", "geolocation", "microphone", "payment", "publickey-credentials-get", "usb")
FEATURES = ", ".join(f"{name}=()" for name in DEVICES)


class PolicyMiddleware(CSPMiddleware):
    """Says it with every answer. One of the API is not a page, whoever it is shown by."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if request.path_info.startswith("/v1/"):
            response.headers.setdefault(HEADER, ANSWER)
            return response
        response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        response.headers.setdefault("Permissions-Policy", FEATURES)
        return super().process_response(request, response)
