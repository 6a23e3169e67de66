"""What `manage.py check --deploy` asks of a production beside what Django does."""

import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import Tags, register

PROXIES_UNSAID = checks.Warning(
    "TRUSTED_PROXIES is not set. Behind a proxy everybody has its address: a stranger's tries lock out all.",
    hint="Set it to how many proxies add to X-Forwarded-For; to 0 when browsers connect to the service itself.",
    id="config.W001",
)


@register(Tags.security, deploy=True)
def proxies_are_said(app_configs: Any, **kwargs: Any) -> list[checks.Warning]:
    """HTTPS is ended by somebody: whether that is a proxy must have been thought of."""
    return [PROXIES_UNSAID] if settings.HTTPS and "TRUSTED_PROXIES" not in os.environ else []
