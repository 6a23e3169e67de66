from django.urls import include, path, re_path
from rest_framework.routers import SimpleRouter

from tasks.api import errors
from tasks.api.artifacts import ArtifactView, DownloadView
from tasks.api.document import DocumentView
from tasks.api.views.account import AccountView, TransfersView
from tasks.api.views.deployments import DeploymentViewSet
from tasks.api.views.quotes import QuoteViewSet
from tasks.api.views.tasks import TaskViewSet
from tasks.api.views.usage import UsageView
from tasks.api.views.webhook_endpoints import WebhookEndpointViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tasks", TaskViewSet, basename="task")
router.register("quotes", QuoteViewSet, basename="quote")
router.register("webhook_endpoints", WebhookEndpointViewSet, basename="webhook-endpoint")
router.register("deployments", DeploymentViewSet, basename="deployment")

urlpatterns = [
    path("tasks/<str:task_id>/artifacts/<str:name>", ArtifactView.as_view()),
    path("artifacts/<str:signed>", DownloadView.as_view(), name="download"),
    path("openapi.json", DocumentView.as_view(), name="openapi"),
    path("account", AccountView.as_view()),
    path("account/transfers", TransfersView.as_view()),
    path("usage", UsageView.as_view()),
    path("", include(router.urls)),
    re_path("", errors.not_found),
]
