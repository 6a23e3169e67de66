"""The addresses of all that the admin shows."""

from collections.abc import Iterator

from django.contrib import admin
from django.urls import reverse

from tests.admin.people import act_url, list_url, page_url, screen


def pages() -> Iterator[str]:
    """Every list, page and history of every screen; the pages of every act on them."""
    yield reverse("admin:index")
    for model, shown in admin.site._registry.items():
        yield list_url(model)
        for row in model._base_manager.all()[:3]:
            yield page_url(row)
            yield reverse(f"admin:{screen(row)}_history", args=[row.pk])
            yield from (act_url(row, act.name) for act in getattr(shown, "acts", ()))
