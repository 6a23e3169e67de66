"""Who knocks at the admin: from which address, and what is told to whoever tried too often."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from axes.handlers.proxy import AxesProxyHandler
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.signals import user_login_failed
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers

# As much of a name as a row of failed logins holds; the names of users are shorter.
LONGEST_NAME = 255
# What one customer of an IPv6 provider has at least: addresses inside it are changed at will.
SITE = 64


def name(request: HttpRequest, credentials: dict[str, Any] | None) -> str:
    """The name that was tried."""
    return ((credentials or {}).get("username") or request.POST.get("username", ""))[:LONGEST_NAME]


def client_address(request: HttpRequest) -> str | None:
    """The address a request came from, as the outermost of our proxies saw it; of an IPv6 one its network."""
    hops = [*request.headers.get("X-Forwarded-For", "").split(","), request.META.get("REMOTE_ADDR", "")]
    address = _parsed(hops[max(-len(hops), -1 - settings.TRUSTED_PROXIES)]) or _parsed(hops[-1])
    if isinstance(address, IPv6Address):
        return str(ip_network((address, SITE), strict=False).network_address)
    return str(address) if address else None


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def password_change(request: HttpRequest) -> HttpResponse:
    """The page for a new password. A wrong old one counts as a login that failed."""
    tried = {"username": request.user.get_username()}
    if request.method == "POST" and not AxesProxyHandler.is_allowed(request, tried):
        return locked(request, None, tried)
    answer = admin.site.password_change(request)
    form = getattr(answer, "context_data", {}).get("form")
    if form is not None and "old_password" in form.errors:
        user_login_failed.send(__name__, credentials=tried, request=request)
    return answer


def locked(request: HttpRequest, _answer: HttpResponse | None, _credentials: dict[str, Any]) -> HttpResponse:
    """The login page's place, until the lock ends."""
    wait = settings.AXES_COOLOFF_TIME
    context = {**admin.site.each_context(request), "title": "Locked", "minutes": wait.total_seconds() / 60}
    response = render(request, "admin/counterfoil/locked.html", context, status=429)
    response["Retry-After"] = str(int(wait.total_seconds()))
    add_never_cache_headers(response)
    return response
