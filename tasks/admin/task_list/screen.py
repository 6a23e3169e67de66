"""The list of tasks: what an operator sees of each at a glance, and what it can be narrowed to."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin import ListFilter
from django.contrib.admin.options import ModelAdmin
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.db.models import QuerySet
from django.http import HttpRequest, QueryDict
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.timezone import localtime, now
from unfold.contrib.filters.forms import AutocompleteDropdownForm
from unfold.paginator import InfinitePaginator
from unfold.widgets import INPUT_CLASSES, UnfoldAdminSelectWidget

from billing.admin.screens import NOTHING, Rows, amount, label, link, when
from billing.models import Account, Charge
from tasks.admin.found import MONEY, task_id_of
from tasks.admin.task_list.filters import GRACE, NEEDS, PARAMETERS, PAUSED, by_name, matching, moment, unreadable
from tasks.admin.task_list.pages import page
from tasks.admin.task_list.search import understood
from tasks.admin.task_page.head import COLOURS
from tasks.admin.task_page.timeline import seconds
from tasks.models import Callback, Deployment, Task
from tasks.statuses import ErrorCode, Status

BEFORE = "before"
ONE_LINE = '<span class="whitespace-nowrap" title="{}">{}</span>'
# Where a list has been read to: whoever narrows it begins with the newest again.
PLACE = (BEFORE, "p")
CALLBACKS = {Callback.Status.DELIVERED: "success", Callback.Status.FAILED: "danger", Callback.Status.PENDING: "info"}
PRESETS = {"hour": timedelta(hours=1), "24 hours": timedelta(days=1), "7 days": timedelta(7), "30 days": timedelta(30)}
MODELS = 500
QUESTIONS = [
    ("All", {}),
    *((words.partition(":")[0], {"need": name}) for name, (words, _) in NEEDS.items()),
    ("Running", {"status": "running"}),
    ("Queued", {"status": "queued"}),
    ("Paused", {"status": "paused"}),
    ("Failed", {"status": "failed"}),
]


class OlderTasks(InfinitePaginator):
    """The way to the next page; `get_results` reads the page itself."""

    template_name = "admin/counterfoil/task_older.html"


class TaskRows(Rows):
    """A page that begins below an id, with what it says of each task read for the page at once."""

    before = ""

    def get_queryset(self, request: HttpRequest, exclude_parameters: list[str] | None = None) -> QuerySet:
        self.before = self.params.pop(BEFORE, self.before)
        self.filter_params.pop(BEFORE, None)
        return super().get_queryset(request, exclude_parameters)

    def get_results(self, request: HttpRequest) -> None:
        asked = getattr(request, "understood", None)
        params = self.params | {"q": self.query}
        tasks = self.queryset.select_related(None)
        self.page = page(tasks, params, asked, before=task_id_of(self.before), size=self.list_per_page)
        self.result_list = shown(self.queryset.filter(pk__in=self.page.ids))
        self.paginator = OlderTasks(self.result_list, self.list_per_page)
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count, self.show_admin_actions = False, True
        self.can_show_all, self.multi_page = False, True
        names = PARAMETERS.keys() - {"q", "model", "capability"}  # any text may be one of these, and asking costs
        self.unreadable = unreadable({name: self.params[name] for name in names if name in self.params})

    @property
    def older_url(self) -> str | None:
        return self.get_query_string({BEFORE: str(self.page.older)}) if self.page.older else None

    @property
    def newest_url(self) -> str | None:
        return self.get_query_string() if self.before else None

    @property
    def questions(self) -> list[tuple[str, str, bool]]:
        """What operators ask most, each a link that asks it alone, and whether it is asked now."""
        now_asked = {name: value for name, value in self.params.items() if name in PARAMETERS}
        return [(words, f"?{urlencode(asks)}", asks == now_asked) for words, asks in QUESTIONS]

    @property
    def given(self) -> list[tuple[str, str, str]]:
        """What the list is narrowed to now, each with the link that takes it away."""
        names = [name for name in PARAMETERS if name != "q" and self.params.get(name, "").strip()]
        return [(_said(name), self._told(name), self.get_query_string({name: None})) for name in names]

    def _told(self, name: str) -> str:
        value = self.params[name]
        if name in self.unreadable:
            return value[:40]
        if name == "account":
            return str(Account.objects.filter(pk=value).first() or value)
        if name.endswith(("_from", "_to")):
            return when(moment(value))
        return NEEDS[value][0] if name == "need" else value.replace("_", " ") if name == "code" else value[:40]


def _said(parameter: str) -> str:
    return parameter.replace("_to", " before").replace("_", " ")


def shown(tasks: QuerySet) -> list[Task]:
    """These tasks, the newest first, each with its charge and its own URL's callback."""
    rows = sorted(tasks, key=lambda task: task.pk, reverse=True)
    ids = [task.pk for task in rows]
    charges = Charge.objects.in_bulk(ids)
    callbacks = Callback.objects.filter(task__in=ids, endpoint=None).only("task_id", "status", "attempt_count")
    called = {callback.task_id: callback for callback in callbacks.order_by("id")}
    for task in rows:
        task.charge, task.called = charges.get(task.pk), called.get(task.pk)
    return rows


class Narrowed(forms.Form):
    """What a list of tasks can be narrowed to, besides its search."""

    Media = AutocompleteDropdownForm.Media

    def __init__(self, *args: Any, site: admin.AdminSite, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = list(Deployment.objects.order_by("name").values_list("name", "capability", "queue")[:MODELS])
        self._choose("need", "What they need", [(name, words) for name, (words, _) in NEEDS.items()])
        self._choose("status", "Status", [(name, name.capitalize()) for name in (*Status, PAUSED)])
        self._choose("code", "Failed by", [(code, code.replace("_", " ")) for code in ErrorCode])
        self._choose("model", "Model", [(name, name) for name, _, _ in models])
        self._choose("capability", "Capability", [(name, name) for name in sorted({of for _, of, _ in models})])
        self._choose("queue", "Queue", [(name, name) for name in sorted({of for _, _, of in models})])
        widget = AutocompleteSelect(
            Task._meta.get_field("account"), site, attrs={"class": "unfold-filter-autocomplete"}
        )
        self.fields["account"] = forms.ModelChoiceField(Account.objects, required=False, widget=widget)
        for name in ("created", "ended"):
            self._at(f"{name}_from", f"{name.capitalize()} from")
            self._at(f"{name}_to", f"{name.capitalize()} before")

    def _choose(self, name: str, words: str, choices: list[tuple[str, str]]) -> None:
        chosen = self.initial.get(name)
        unknown = [(chosen, chosen)] if chosen and chosen not in dict(choices) else []
        self.fields[name] = forms.ChoiceField(
            choices=[("", "All"), *choices, *unknown], label=words, required=False, widget=UnfoldAdminSelectWidget
        )

    def _at(self, name: str, words: str) -> None:
        attrs = {"type": "datetime-local", "class": " ".join(INPUT_CLASSES)}
        self.fields[name] = forms.CharField(label=words, required=False, widget=forms.TextInput(attrs=attrs))


class Narrow(ListFilter):
    """All that the list can be narrowed to, in one form."""

    title, template, form_class = "tasks", "admin/counterfoil/task_filters.html", Narrowed

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: type, model_admin: ModelAdmin) -> None:
        super().__init__(request, params, model, model_admin)
        self.site = model_admin.admin_site
        for name in self.expected_parameters():
            if value := params.pop(name, None):
                self.used_parameters[name] = value[-1].strip()
        self.used_parameters |= dict.fromkeys(PLACE, "")

    def has_output(self) -> bool:
        return True

    def expected_parameters(self) -> list[str]:
        return [name for name in PARAMETERS if name != "q"]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return matching(self.used_parameters, tasks=queryset)

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """The form as it was sent, times as browsers write them, and a link for each of the last so many days."""
        given = {name: _local(value) if name.endswith(("_from", "_to")) else value
                 for name, value in self.used_parameters.items()}  # fmt: skip
        if "account" in given and unreadable({"account": given["account"]}):
            del given["account"]
        presets = {
            name: [
                (words, changelist.get_query_string({f"{name}_from": _iso(span), f"{name}_to": None}))
                for words, span in PRESETS.items()
            ]
            for name in ("created", "ended")
        }
        yield {"form": Narrowed(initial=given, site=self.site), "presets": presets}


def _iso(span: timedelta) -> str:
    return localtime(now() - span).isoformat(timespec="minutes")


def _local(value: str) -> str:
    """A moment as a browser's field for one takes it."""
    try:
        return localtime(moment(value)).strftime("%Y-%m-%dT%H:%M")
    except (ValueError, OverflowError):
        return value


class TaskList:
    """The columns, filters and search of the list of tasks."""

    list_display = ("public", "state", "of_model", "of_account", "age", "took", "net", "callback")
    list_filter = (Narrow,)
    list_filter_submit = True
    list_filter_sheet = True
    list_before_template = "admin/counterfoil/task_list_notes.html"
    search_help_text = "Task id or how it begins, client reference, key=value, or account"

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return tuple(name for name in self.list_display if name != "net" or request.user.has_perms(MONEY))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TaskRows

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        asked = QueryDict(mutable=True)
        asked.update(by_name(request.GET))
        request.GET = asked
        return super().get_changelist_instance(request)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in PARAMETERS and "\x00" not in value

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        if not search_term.strip():
            return queryset, False
        request.understood = understood(search_term)
        return queryset.filter(request.understood.condition), False

    @admin.display(description="task")
    def public(self, task: Task) -> str:
        return str(task)

    @admin.display(description="status")
    def state(self, task: Task) -> SafeString:
        late = task.completed_at is None and task.deadline < now() - GRACE
        shown = label("paused", "warning") if task.paused_at else label(task.status, COLOURS.get(task.status, ""))
        why = task.error["code"].replace("_", " ") if task.error else "past its deadline" if late else ""
        return format_html('{} <span class="{}">{}</span>', shown, "task-bad" if late else "task-small", why)

    @admin.display(description="model")
    def of_model(self, task: Task) -> SafeString:
        return format_html(ONE_LINE, "", task.model)

    @admin.display(description="account")
    def of_account(self, task: Task) -> str:
        return link("billing_account", task.account_id, task.account)

    @admin.display(description="age")
    def age(self, task: Task) -> SafeString:
        return format_html(ONE_LINE, when(task.created_at), rough(now() - task.created_at))

    @admin.display(description="took")
    def took(self, task: Task) -> SafeString | str:
        """From its first start to its end, or until now."""
        if task.started_at is None:
            return NOTHING
        span = seconds(((task.completed_at or now()) - task.started_at).total_seconds())
        return format_html(ONE_LINE, "" if task.completed_at else "so far", span)

    @admin.display(description="charge")
    def net(self, task: Any) -> SafeString | str:
        """What was charged and not refunded; before the end, what is held."""
        if task.charge is None:
            return NOTHING
        if task.completed_at is None:
            return format_html('<span class="task-small whitespace-nowrap">{} held</span>', amount(task.charge.held))
        left = amount(task.charge.charged - task.charge.refunded)
        if not task.charge.refunded:
            return left
        return format_html('{} <span class="task-small">{} refunded</span>', left, amount(task.charge.refunded))

    @admin.display(description="callback")
    def callback(self, task: Any) -> SafeString | str:
        if task.called is None:
            return NOTHING
        tries = f"{task.called.attempt_count} tries" if task.called.attempt_count > 1 else ""
        words = "owed" if task.called.status == Callback.Status.PENDING else task.called.status
        return format_html('{} <span class="task-small">{}</span>', label(words, CALLBACKS[task.called.status]), tries)


def rough(span: timedelta) -> str:
    """How long, in the largest unit that fits."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if span.total_seconds() >= size:
            return f"{int(span.total_seconds() // size)} {unit}"
    return f"{max(0, int(span.total_seconds()))} s"
