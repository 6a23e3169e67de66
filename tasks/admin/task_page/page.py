"""The page of one task: read in few statements, live while it runs, and nothing in it that its reader may not see."""

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import Case, OuterRef, Subquery, TextField, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Left, Length
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from billing.admin.screens import SHOWN
from billing.models import Charge
from tasks.admin.found import CONTENT, MONEY, task_id_of
from tasks.admin.task_page.chain import MOST, chain
from tasks.admin.task_page.content import PARTS, Content, in_lines, of_json, of_text, of_written
from tasks.admin.task_page.files import artifact_file, artifacts_of, content_file
from tasks.admin.task_page.head import SENTENCE, head
from tasks.admin.task_page.live import SEEN, interval, seen
from tasks.admin.task_page.money import money
from tasks.admin.task_page.request import commands
from tasks.admin.task_page.technical import technical
from tasks.admin.task_page.timeline import read, timeline
from tasks.identifiers import public_id
from tasks.models import Run, Task
from tasks.statuses import FINAL

WHOSE = ("account", "api_key", "deployment")
HIDDEN = ("input", "output", "creation_request")


class TaskPage:
    """A screen's page of one task, and the small views that it asks."""

    change_form_template = "admin/counterfoil/task.html"
    change_form_outer_after_template = None
    fields = ()

    def get_urls(self) -> list[URLPattern]:
        views = [
            path("<uuid:task_id>/live/", self._view(self.live), name="tasks_task_live"),
            path("<uuid:task_id>/earlier/", self._view(self.earlier), name="tasks_task_earlier"),
            path("<uuid:task_id>/content/<str:name>/", self._view(self.content_file), name="tasks_task_content"),
            path("<uuid:task_id>/artifacts/<str:name>/", self._view(self.artifact), name="tasks_task_artifact"),
        ]
        return [*views, *super().get_urls()]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Task | None:
        """The task of this id, in any spelling, with its charge, and with its input for whoever may view content."""
        unread = ("output",) if request.user.has_perm(CONTENT) else HIDDEN
        return self._found(request, task_id_of(object_id), unread)

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Of the task, however its id is spelled: the entries know one spelling."""
        task_id = task_id_of(object_id)
        return super().history_view(request, str(task_id) if task_id else object_id, extra_context)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        task = kwargs["obj"]
        context |= self.still(request, task) | self.moving(request, task)
        response = super().render_change_form(request, context, *args, **kwargs)
        response.context_data["actions_detail"] = []  # they are in the page's head
        return response

    def live(self, request: HttpRequest, task_id: UUID) -> HttpResponse:
        """The parts of the page that may have changed, or 204 for a page that has seen what is there."""
        now_seen = seen(task_id)
        if now_seen and request.GET.get("seen") == now_seen:
            return HttpResponse(status=204)
        task = self._task(request, task_id, *HIDDEN)
        context = {"swap": True, "opts": self.opts, **self.moving(request, task)}
        return TemplateResponse(request, "admin/counterfoil/task_moving.html", context)

    def earlier(self, request: HttpRequest, task_id: UUID) -> HttpResponse:
        """What happened up to a moment."""
        try:
            until = parse_datetime(request.GET.get("until", ""))
        except ValueError:
            until = None
        if until is None or until.tzinfo is None:
            raise Http404
        task, answers = self._task(request, task_id, *HIDDEN), request.user.has_perm(CONTENT)
        told = timeline(
            read(task, answers=answers, until=until), answers=answers, money=_sees_money(request), until=until
        )
        context = {"original": task, "timeline": told}
        return TemplateResponse(request, "admin/counterfoil/task_entries.html", context)

    def content_file(self, request: HttpRequest, task_id: UUID, name: str) -> HttpResponseBase:
        self._must_see_content(request)
        if name not in PARTS:
            raise Http404
        return content_file(task_id, name)

    def artifact(self, request: HttpRequest, task_id: UUID, name: str) -> HttpResponseBase:
        self._must_see_content(request)
        return artifact_file(task_id, name, shown="show" in request.GET)

    def still(self, request: HttpRequest, task: Task) -> dict[str, Any]:
        """What of the page never changes: what the task was given, and how it is asked again."""
        content = request.user.has_perm(CONTENT)
        return {
            "metadata": in_lines(task.metadata) if task.metadata else "",
            "given": of_json(task, "input", "Input", task.input) if content and not task.content_deleted_at else None,
            "commands": commands(task, content=content),
            "creation_request": in_lines(task.creation_request) if content and task.creation_request else "",
            "sees_content": content,
        }

    def moving(self, request: HttpRequest, task: Any) -> dict[str, Any]:
        """What of the page may change. What was seen came with the task: what changed since is news again."""
        content, sees_money = request.user.has_perm(CONTENT), _sees_money(request)
        rows = read(task, answers=content)
        return {
            "original": task,
            "seen": task.seen,
            "every": interval(task, rows.rows["callbacks"]),
            "live": reverse("admin:tasks_task_live", args=[task.pk]),
            "acts": self._buttons(request, task),
            "head": head(task, rows.rows),
            "made": made(task) if content and not task.content_deleted_at else None,
            "artifacts": artifacts_of(task) if content else [],
            "error": task.error if task.error and len(task.error.get("message") or "") > SENTENCE / 2 else None,
            "warnings": task.warnings,
            "sees_content": content,
            "money": money(task, transfers=rows.rows["transfers"]) if sees_money else None,
            "timeline": timeline(rows, answers=content, money=sees_money),
            "chain": chain(task),
            "most_reruns": MOST,
            "first_of_all": public_id(task.rerun_root) if task.rerun_root else "",
            "technical": technical(task, money=sees_money),
        }

    def _view(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        """A view for whoever may see tasks, by GET only."""

        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not self.has_view_permission(request):
                raise PermissionDenied
            return view(request, *args, **kwargs)

        return self.admin_site.admin_view(require_safe(checked))

    def _must_see_content(self, request: HttpRequest) -> None:
        if not request.user.has_perm(CONTENT):
            raise PermissionDenied

    def _found(self, request: HttpRequest, task_id: UUID | None, unread: Iterable[str]) -> Task | None:
        tasks = self.get_queryset(request).select_related(*WHOSE).defer(*unread)
        tasks = tasks.annotate(seen=RawSQL(SEEN, [task_id]))  # noqa: S611 - a constant
        if request.user.has_perm(CONTENT):
            tasks = tasks.annotate(**_made())
        task = tasks.filter(pk=task_id).first() if task_id else None
        if task is not None:
            task.charge = Charge.objects.filter(task_id=task.pk).first()
        return task

    def _task(self, request: HttpRequest, task_id: UUID, *unread: str) -> Task:
        if (task := self._found(request, task_id, unread)) is None:
            raise Http404
        return task


def _sees_money(request: HttpRequest) -> bool:
    return request.user.has_perms(MONEY)


def made(task: Any) -> Content | None:
    """What the task made: its output, or what its last run streamed so far."""
    if task.written is not None:
        return of_written(task, "output", "Output", task.written)
    title = "Text so far" if task.status not in FINAL else "Text that was streamed"
    text, length = task.streamed, task.streamed_length
    return of_text(task, "text", title, text, length=length) if text else None


def _made() -> dict[str, Any]:
    """Columns of what the task made: its output as it was written or, where there is none, what was streamed."""
    run = Run.objects.filter(task_id=OuterRef("pk"), number=OuterRef("attempt"))
    texts = {"streamed": Left("partial_text", SHOWN), "streamed_length": Length("partial_text")}
    streamed = {name: Subquery(run.values_list(of, flat=True)) for name, of in texts.items()}
    unmade = {name: Case(When(output__isnull=True, then=text)) for name, text in streamed.items()}
    return {"written": Cast("output", TextField()), **unmade}
