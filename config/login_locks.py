"""Who is locked out: a name from an address after a few wrong passwords, an address after many of any names."""

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.models import AccessAttempt
from django.conf import settings
from django.db.models import Sum
from django.http import HttpRequest


class Locks(AxesDatabaseHandler):
    """Against one password for many names, too; so late that few who share an address lock out one another."""

    def is_locked(self, request: HttpRequest, credentials: dict | None = None) -> bool:
        return super().is_locked(request, credentials) or self._from_there(request) >= settings.LOGIN_ADDRESS_TRIES

    def _from_there(self, request: HttpRequest) -> int:
        """Wrong passwords from this address of late."""
        since = get_cool_off_threshold(request)
        tried = AccessAttempt.objects.filter(ip_address=request.axes_ip_address, attempt_time__gte=since)
        return tried.aggregate(total=Sum("failures_since_start"))["total"] or 0
