from django.urls import include, path, re_path
from rest_framework.routers import SimpleRouter

from tasks.api import errors
from tasks.api.artifacts import ArtifactView, DownloadView
from tasks.api.document import DocumentView
from tasks.api.views.tasks import TaskViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tasks", TaskViewSet, basename="task")

urlpatterns = [
    path("tasks/<str:task_id>/artifacts/<str:name>", ArtifactView.as_view()),
    path("artifacts/<str:signed>", DownloadView.as_view(), name="download"),
    path("openapi.json", DocumentView.as_view(), name="openapi"),
    path("", include(router.urls)),
    re_path("", errors.not_found),
]
