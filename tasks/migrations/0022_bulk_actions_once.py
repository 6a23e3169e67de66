from django.db import migrations, models


def be_their_own_roots(apps, schema_editor):
    """Each keeps the keys that its rows have had."""
    apps.get_model("tasks", "BulkAction").objects.update(root=models.F("id"))


class Migration(migrations.Migration):
    dependencies = [("tasks", "0021_lists_of_tasks")]

    operations = [
        migrations.RemoveIndex("bulkaction", "bulk_running"),
        migrations.AddField("bulkaction", "root", models.UUIDField(null=True)),
        migrations.RunPython(be_their_own_roots, migrations.RunPython.noop),
        migrations.AlterField(
            "bulkaction",
            "root",
            models.UUIDField(help_text="The first action of a row of retries: its key is theirs."),
        ),
        migrations.AddField(
            "bulkaction",
            "digest",
            models.CharField(default="", help_text="Of what was foretold of every row.", max_length=32),
        ),
        migrations.AddField(
            "bulkactionrow",
            "seen",
            models.TextField(
                default="", help_text="What it showed then, and must still show when it is acted on."
            ),
        ),
        migrations.AddIndex(
            "bulkaction",
            models.Index(
                "served_at",
                condition=models.Q(status="running") | models.Q(lease_token__isnull=False),
                name="bulk_running",
            ),
        ),
        migrations.AddConstraint(
            "bulkaction",
            models.UniqueConstraint(
                condition=models.Q(status="ready") | models.Q(started_at__isnull=False),
                fields=("retry_of",),
                name="a_bulk_action_is_tried_again_once",
            ),
        ),
    ]
