from django.db import migrations


class Migration(migrations.Migration):
    """The admin's history of one row is found by its id; Django's own indexes are of users and kinds only."""

    dependencies = [("tasks", "0015_ends_by_time"), ("admin", "0003_logentry_add_action_flag_choices")]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX admin_history_of_a_row ON django_admin_log (object_id, action_time DESC)",
            "DROP INDEX admin_history_of_a_row",
        )
    ]
