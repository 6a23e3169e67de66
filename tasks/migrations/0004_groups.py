"""Ready-made groups of operators: what each may do beside looking."""

from django.contrib.auth.management import create_permissions
from django.db import migrations

ACTS = {
    "tasks": [
        "cancel_task",
        "rerun_task",
        "pause_task",
        "extend_deadline",
        "change_priority",
        "redeliver_callback",
        "drain_deployment",
        "delete_content",
        "view_content",
        "add_deployment",
        "change_deployment",
    ],
    "billing": [
        "refund_charge",
        "grant_credits",
        "adjust_credits",
        "issue_apikey",
        "rotate_secret",
        "disable_account",
        "add_account",
        "change_account",
        "add_price",
        "add_ratecard",
    ],
}
GROUPS = {
    "Operator": ACTS["tasks"],
    "Billing": [*ACTS["billing"], "cancel_task", "rerun_task"],
    "Support": [],
}


def create_groups(apps, schema_editor):
    """Every group sees every row. Only `view_content`, which is an act here, shows what customers sent and got."""
    _make_permissions(apps)
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    ours = Permission.objects.filter(content_type__app_label__in=ACTS)
    views = ours.filter(codename__startswith="view_").exclude(codename="view_content")
    for name, acts in GROUPS.items():
        group, _ = Group.objects.get_or_create(name=name)
        group.permissions.add(*views, *ours.filter(codename__in=acts))


def _make_permissions(apps):
    """Django makes permissions after the last migration; the groups need them now."""
    for label in ACTS:
        config = apps.get_app_config(label)
        if not hasattr(config, "models_module"):
            config.models_module = True  # the apps of a migration have none, and Django would skip them
        create_permissions(config, apps=apps, verbosity=0)


class Migration(migrations.Migration):
    dependencies = [
        ("tasks", "0003_first_start"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(create_groups, migrations.RunPython.noop)]
