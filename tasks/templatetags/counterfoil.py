"""What the admin's own templates say in the same words everywhere: moments, links to rows, whether a sum is right.

The screens are imported when a tag is used: unfold renders a template, and so asks for all tags, while it is imported.
"""

from datetime import datetime
from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import now

register = template.Library()
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@register.simple_tag
def moment(at: datetime | None) -> SafeString | str:
    """A moment, and how far it is from now; the page's script keeps that up to date."""
    from billing.admin.screens import when

    if at is None:
        return when(at)
    text = '<time datetime="{}">{}</time> <span class="task-ago" data-ago="{}">{}</span>'
    return format_html(text, at.isoformat(), when(at), at.isoformat(), ago(at))


@register.simple_tag
def running_since(at: datetime) -> SafeString:
    """How long it has gone on; the page's script keeps that up to date."""
    return format_html('<span data-since="{}">{}</span>', at.isoformat(), _far((now() - at).total_seconds()))


@register.simple_tag
def actor(of: str) -> str:
    from billing.admin.screens import who

    return who(of)


@register.filter
def called(part: dict[str, Any]) -> str:
    """A part of a page's path, by the name that the menu has for it."""
    from tasks.admin.navigation import named

    return named(str(part["link"])) or str(part["title"])


@register.simple_tag
def row_link(to: str, pk: Any, text: Any) -> SafeString | str:
    from billing.admin.screens import link

    return link(to, pk, text)


@register.simple_tag
def tick(holds: bool) -> SafeString:  # noqa: FBT001 - what a template says
    name, icon, said = ("good", "check_circle", "holds") if holds else ("bad", "error", "does not hold")
    text = '<span class="material-symbols-outlined task-{}" role="img" aria-label="{}">{}</span>'
    return format_html(text, name, said, icon)


def ago(at: datetime) -> str:
    """How far a moment is from now, in its largest unit."""
    seconds = (now() - at).total_seconds()
    return f"{_far(seconds)} ago" if seconds >= 0 else f"in {_far(-seconds)}"


def _far(seconds: float) -> str:
    size, unit = next((each for each in UNITS if seconds >= each[0]), UNITS[-1])
    return f"{int(seconds // size)} {unit}"
