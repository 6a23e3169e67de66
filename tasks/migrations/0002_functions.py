"""The functions that build a task's JSON, from `tasks/sql/task_json.sql`."""

from django.db import migrations

from tasks.sql import load


class Migration(migrations.Migration):
    dependencies = [("tasks", "0001_initial")]

    operations = [
        migrations.RunSQL(
            load("task_json"),
            "DROP FUNCTION task_json_as_written, task_json, meter_total, typeid, rfc3339",
        )
    ]
