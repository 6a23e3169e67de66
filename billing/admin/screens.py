"""What the screens of the admin have in common: they show rows, cheaply, and change none by hand."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.options import BaseModelAdmin
from django.core.paginator import Paginator
from django.db import connection
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.formats import localize
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.timezone import template_localtime
from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator
from unfold.views import ChangeList

from billing.exceptions import ChangedSince

NOTHING = "-"
# What of a long JSON or text a page shows. An output is at most 1 MiB; a browser is not the place to read that.
SHOWN = 100_000
# What of a value the history tells.
WORDED = 200
# A cell that is read from the right: a number, linked or not, or nothing.
NUMBER = re.compile(r"(<a [^>]*>)?[+-]?\d[\d,]*(\.\d+)?( %)?(</a>)?|-")
# What a search box reads: whoever pastes more than a name looks for nobody.
LONGEST_SEARCH, MOST_WORDS = 300, 16
# How a field that may be looked up by address can be asked: never by a part of what it holds.
ASKED = {"", "exact", "id__exact", "isnull"}


@dataclass(frozen=True)
class Table:
    """Rows below a page's fields. `more` is the address of the list that has all of them."""

    title: str
    headers: list[str]
    rows: list[list[Any]]
    more: str = ""

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """Each header, and whether numbers stand below it."""
        return [(header, self._counts(number)) for number, header in enumerate(self.headers)]

    @property
    def cells(self) -> list[list[tuple[Any, str, bool]]]:
        """Each row's cells, with their header and whether they are numbers."""
        return [[(cell, *column) for cell, column in zip(row, self.columns, strict=False)] for row in self.rows]

    def _counts(self, number: int) -> bool:
        column = [str(row[number]) for row in self.rows if number < len(row)]
        return all(map(NUMBER.fullmatch, column)) and any(cell != NOTHING for cell in column)


class Rows(ChangeList):
    """A list that reads only what it shows, and is called what it is a list of."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = capfirst(self.opts.verbose_name_plural)

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet:
        return self.model_admin.for_list(super().get_queryset(request, exclude_parameters))


class Brief:
    """A list that is asked for a few words, and counts nothing beside its filters."""

    show_facets = admin.ShowFacets.NEVER

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        """What is longer than any name is nobody's."""
        if len(search_term) > LONGEST_SEARCH or len(search_term.split()) > MOST_WORDS or "\x00" in search_term:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)


class AskedInText(Brief):
    """A list whose address is asked with text that the database can hold."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return "\x00" not in value and super().lookup_allowed(lookup, value, request)


class Screen(Brief, ModelAdmin):
    """A list and a page to read. Whoever may change something by hand says so in a subclass."""

    paginator = InfinitePaginator
    show_full_result_count = False
    list_per_page = 50
    list_disable_select_all = True
    sortable_by = ()
    ordering = ("-id",)
    empty_value_display = NOTHING
    compressed_fields = False
    change_form_outer_after_template = "admin/counterfoil/tables.html"
    # Fields that a list does not read, and fields beside the filters that an address may ask for.
    heavy: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return Rows

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        related = self.list_select_related
        queryset = super().get_queryset(request)
        return queryset.select_related(*related) if related else queryset

    def for_list(self, queryset: QuerySet) -> QuerySet:
        return queryset.defer(*self.heavy)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Only what the page offers: any other lookup would read, bit by bit, a field that the page hides."""
        if lookup in _parameters(self.list_filter):
            return True
        field, _, rest = lookup.partition("__")
        named = (name for name in self.list_filter if not isinstance(name, type))
        offered = {*self.linked, *(name if isinstance(name, str) else name[0] for name in named)}
        return field in offered and rest in ASKED and "\x00" not in value

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if obj := kwargs.get("obj"):
            context["tables"] = self.tables(request, obj)
        context["show_save_and_add_another"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Paginator:
        """A list's rows are not counted. A row's history is short: it has a number and a last page."""
        if getattr(queryset, "model", None) is LogEntry:
            return Paginator(queryset, *args, **kwargs)
        return super().get_paginator(request, queryset, *args, **kwargs)

    @admin.display(description="by")
    def by(self, row: Any) -> str:
        return who(row.actor)

    def tables(self, request: HttpRequest, obj: Any) -> list[Table]:
        """What stands below the fields of this row's page."""
        return []


def _parameters(list_filter: Iterable[Any]) -> set[str]:
    """What the filters of our own are asked by."""
    own = [each for each in list_filter if isinstance(each, type)]
    return {name for each in own for name in getattr(each, "parameter_names", None) or (each.parameter_name,)}


class Added:
    """A screen whose rows may be added, by whom Django's permission allows it."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return BaseModelAdmin.has_add_permission(self, request)


class Edited:
    """A screen whose rows may be edited: an edit writes the columns it changed and leaves alone what moves.

    Its form carries what it had shown: when the row is another by now, the edit is refused and shown what is.
    """

    change_form_before_template = "admin/counterfoil/shown.html"

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return BaseModelAdmin.has_change_permission(self, request, obj)

    def get_object(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Model | None:
        """The row, and for an edit nobody else's until it is written."""
        obj = super().get_object(request, *args, **kwargs)
        if obj is not None and request.method == "POST" and connection.in_atomic_block:
            obj.refresh_from_db(from_queryset=type(obj)._base_manager.select_for_update(no_key=True))
        return obj

    def get_form(self, request: HttpRequest, obj: Model | None = None, **kwargs: Any) -> type[forms.ModelForm]:
        form = super().get_form(request, obj, **kwargs)
        return type(form.__name__, (Unchanged, form), {"seen": request.POST.get("shown", "")}) if obj else form

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("obj"):
            context["shown"] = shown(context["adminform"].form)
        return super().render_change_form(request, context, *args, **kwargs)

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:  # noqa: FBT001, FBT002 - Django's
        """What each field was and is."""
        if add:
            return super().construct_change_message(request, form, formsets, add)
        told = "; ".join(f"{name}: {was} → {is_}" for name, was, is_ in _moved(form))
        return f"Changed {told}." if told else "Changed nothing."

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's
        obj.save(update_fields=form.changed_data if change else None, force_insert=not change)


class Unchanged:
    """A form of a row that must be what it was when its page was shown."""

    seen = ""

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if self.seen != shown(self):
            now = "; ".join(f"{name} is {was}" for name, was, _ in _moved(self))
            told = f"Unlike what you sent, now: {now or 'nothing'}. Saving again writes what you sent."
            self.add_error(None, f"{ChangedSince.message} {told}")
        return data


def shown(form: Any) -> str:
    """What changes with every value that the page of a row lets edit."""
    values = [(name, str(form.initial.get(name))) for name in form.fields]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _moved(form: Any) -> Iterator[tuple[str, str, str]]:
    """What each field that an edit changes is called, was and is to be; nothing, where that makes no sense."""
    for name in form.changed_data:
        field = form.fields[name]
        was, is_ = (_worded(field, values.get(name)) for values in (form.initial, form.cleaned_data))
        if was != is_:
            yield str(field.label), was, is_


def _worded(field: forms.Field, value: Any) -> str:
    """A value as the history tells it; a chosen row by its name."""
    if isinstance(field, forms.ModelChoiceField):
        value = value if isinstance(value, Model) else field.queryset.filter(pk=value).first()
    if isinstance(value, bool):
        return yes_or_no(value)
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return "nothing" if value in (None, "") else text if len(text) <= WORDED else f"{text[:WORDED]}…"


def when(moment: Any) -> str:
    """A moment as every page writes it."""
    return localize(template_localtime(moment)) if moment else NOTHING


def amount(credits_: Decimal | None) -> str:
    """Credits as every page writes them: with thousands apart, and to the fourth place at least."""
    if credits_ is None:
        return NOTHING
    finer = credits_.as_tuple().exponent
    return f"{credits_:,f}" if isinstance(finer, int) and finer < -4 else f"{credits_:,.4f}"


def who(actor: str) -> str:
    """Somebody as every page names them: an operator by the name alone."""
    kind, _, name = actor.partition(":")
    return {"operator": name, "api_key": f"key {name}"}.get(kind, actor)


def yes_or_no(answer: bool) -> str:  # noqa: FBT001 - the answer itself
    return "yes" if answer else "no"


def link(to: str, pk: Any, text: Any) -> SafeString | str:
    """A link to a row's page; `to` is `app_model`."""
    if pk is None:
        return NOTHING
    try:
        return format_html('<a href="{}" class="text-link">{}</a>', reverse(f"admin:{to}_change", args=[pk]), text)
    except NoReverseMatch:
        return str(text)


def listing(to: str, **lookups: Any) -> str:
    """The address of a list, narrowed to these values."""
    query = "&".join(f"{name}__exact={value}" for name, value in lookups.items())
    return f"{reverse(f'admin:{to}_changelist')}?{query}"


def label(text: str, kind: str = "") -> SafeString:
    """A word in a colour: success, danger, warning, info or none."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": kind})


def pretty(value: Any) -> SafeString | str:
    """JSON to read, escaped."""
    if value is None:
        return NOTHING
    return preformatted(json.dumps(value, indent=2, ensure_ascii=False))


def preformatted(text: str) -> SafeString | str:
    """Text as it is, escaped; a very long one is cut and says so."""
    if not text:
        return NOTHING
    return render_to_string("admin/counterfoil/text.html", {"text": text[:SHOWN], "left_out": len(text) - SHOWN})


def compact(data: dict[str, Any] | None) -> str:
    """A small JSON object on one line."""
    return ", ".join(_named(name, value) for name, value in (data or {}).items())


def _named(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return compact(value)
    return f"{name}: {value.rstrip('.') if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def table(title: str, rows: Iterable[Any], *columns: tuple[str, str | Callable[[Any], Any]], more: str = "") -> Table:
    """A table of these rows; a column is a header and an attribute, or a function of the row."""
    cells = [[_cell(of(row) if callable(of) else getattr(row, of)) for _, of in columns] for row in rows]
    return Table(title, [header for header, _ in columns], cells, more)


def _cell(value: Any) -> Any:
    if value is None or value == "":
        return NOTHING
    if hasattr(value, "tzinfo"):
        return when(value)
    return amount(value) if isinstance(value, Decimal) else value
