"""The way from the list of tasks to all that match it."""

from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from unfold.enums import ActionVariant

from tasks import bulk
from tasks.bulk_acts import ACTS


class AllThatMatch:
    """A list with a button that carries its filter to the page where all that match are acted on."""

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        answer = super().changelist_view(request, extra_context)
        context = getattr(answer, "context_data", None)
        if context and "cl" in context and any(bulk.may(request.user, act) for act in ACTS):
            context["actions_list"] = [*context.get("actions_list", []), _button(request)]
        return answer


def _button(request: HttpRequest) -> dict[str, Any]:
    return {
        "title": "All that match…",
        "icon": "done_all",
        "variant": ActionVariant.DEFAULT,
        "attrs": {},
        "dialog": None,
        "path": f"{reverse('admin:tasks_bulkaction_begin')}?{_filled(request.GET)}",
    }


def _filled(params: QueryDict) -> str:
    """What the list was asked for: a search box that was sent empty asks for nothing."""
    return urlencode([(name, value) for name, values in params.lists() for value in values if value.strip()])
