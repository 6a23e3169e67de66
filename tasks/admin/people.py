"""Who may log in here, and to which group they belong: Django's own screens in our look."""

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from billing.admin.screens import AskedInText

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class UserScreen(AskedInText, UserAdmin, ModelAdmin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Who leaves is made inactive: Django would delete what the history says they did."""
        return False


@admin.register(Group)
class GroupScreen(AskedInText, GroupAdmin, ModelAdmin):
    pass
