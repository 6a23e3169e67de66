"""The addresses of lists, narrowed by what their filters take."""

from typing import Any
from urllib.parse import urlencode

from django.urls import reverse


def narrowed(to: str, **parameters: Any) -> str:
    """The list of `app_model` with these parameters."""
    return f"{reverse(f'admin:{to}_changelist')}?{urlencode(parameters)}"


def between(span: str, first: str, last: str) -> dict[str, str]:
    """The parameters of a span, from moments in ISO 8601."""
    return {f"{span}_from": first, f"{span}_to": last}
