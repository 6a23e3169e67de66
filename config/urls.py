"""Where each face is mounted."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config.logins import password_change
from tasks.api.document import docs
from tasks.api.errors import not_found

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("v1", not_found),
    path("v1/", include("tasks.api.urls")),
    path("docs/", docs, name="docs"),
    path("admin/password_change/", admin.site.admin_view(password_change)),
    path("admin/", admin.site.urls),
]
