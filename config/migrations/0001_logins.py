"""Operators see who logs in, and unlock who tried too often."""

from django.contrib.auth.management import create_permissions
from django.db import migrations

MAY = ("view_accessattempt", "delete_accessattempt", "view_accesslog")


def let_operators_unlock(apps, schema_editor):
    config = apps.get_app_config("axes")
    if not hasattr(config, "models_module"):
        config.models_module = True  # the apps of a migration have none, and Django would skip them
    create_permissions(config, apps=apps, verbosity=0)
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    operators, _ = Group.objects.get_or_create(name="Operator")
    operators.permissions.add(*Permission.objects.filter(content_type__app_label="axes", codename__in=MAY))


class Migration(migrations.Migration):
    initial = True
    dependencies = [
        ("tasks", "0004_groups"),
        ("axes", "0010_accessattemptexpiration"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(let_operators_unlock, migrations.RunPython.noop)]
