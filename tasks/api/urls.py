from django.urls import include, path, re_path
from rest_framework.routers import SimpleRouter

from tasks.api import errors
from tasks.api.views import TaskViewSet

router = SimpleRouter(trailing_slash=False)
router.register("tasks", TaskViewSet, basename="task")

urlpatterns = [path("", include(router.urls)), re_path("", errors.not_found)]
