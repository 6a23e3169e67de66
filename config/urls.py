"""Where each face is mounted."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("v1/", include("tasks.api.urls")),
    path("admin/", admin.site.urls),
]
