"""Operators and billing people write notes on accounts and look after webhook endpoints; everybody reads the notes."""

from importlib import import_module

from django.db import migrations, models

groups = import_module("tasks.migrations.0004_groups")
ACTS = {"billing": ["add_accountnote"], "tasks": ["add_webhookendpoint", "delete_webhookendpoint"]}


def extend_groups(apps, schema_editor):
    groups._make_permissions(apps)
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    views = Permission.objects.filter(content_type__app_label="billing", codename="view_accountnote")
    acts = [
        Permission.objects.get(content_type__app_label=app, codename=codename)
        for app, codenames in ACTS.items()
        for codename in codenames
    ]
    for group in Group.objects.filter(name__in=groups.GROUPS):
        group.permissions.add(*views, *(acts if group.name != "Support" else ()))


class Migration(migrations.Migration):
    dependencies = [
        ("tasks", "0016_history_of_a_row"),
        ("billing", "0009_accounts_as_operators_see_them"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="callback",
            index=models.Index(
                models.F("endpoint"),
                models.OrderBy(models.F("id"), descending=True),
                condition=models.Q(("endpoint__isnull", False)),
                name="callback_told",
            ),
        ),
        migrations.RunPython(extend_groups, migrations.RunPython.noop),
    ]
