"""The address by which the service is known outside."""

from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

PORTS = {"http": 80, "https": 443}


def public_url(text: str) -> tuple[str, str]:
    """The address as browsers write it, without a slash at its end, and its origin. Raises ImproperlyConfigured."""
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ImproperlyConfigured(f"PUBLIC_URL: {error}.") from error
    if parts.scheme not in PORTS or not host or parts.query or parts.fragment or "@" in parts.netloc:
        raise ImproperlyConfigured("PUBLIC_URL: write https://tasks.example.com, with a port if it has one.")
    host = f"[{host}]" if ":" in host else host
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, PORTS[parts.scheme]) else "")
    return origin + parts.path.rstrip("/"), origin
