"""Receivers that fail, what waits for them, and for how long attempts are kept."""

import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.text
from django.db import migrations, models

from tasks.sql import load


def show_receivers(apps, schema_editor):
    """Every group sees every row, as migration 0004 has it."""
    ContentType, Permission = apps.get_model("contenttypes", "ContentType"), apps.get_model("auth", "Permission")
    of, _ = ContentType.objects.get_or_create(app_label="tasks", model="receiver")
    view, _ = Permission.objects.get_or_create(
        content_type=of, codename="view_receiver", defaults={"name": "Can view receiver"}
    )
    for group in apps.get_model("auth", "Group").objects.filter(name__in=("Operator", "Billing", "Support")):
        group.permissions.add(view)


class Migration(migrations.Migration):

    dependencies = [
        ('billing', '0002_sent_forms_and_limits'),
        ('tasks', '0004_groups'),
    ]

    operations = [
        migrations.CreateModel(
            name='Receiver',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('url', models.CharField(help_text='Without its query.', max_length=2048)),
                ('host', models.GeneratedField(db_persist=True, expression=django.db.models.functions.comparison.Coalesce(django.db.models.functions.text.Left(django.db.models.functions.text.Lower(models.Func(models.F('url'), models.Value('^[^/]*//([^/?#]*)'), function='substring')), 255), models.Value('')), output_field=models.CharField(max_length=255))),
                ('failures', models.PositiveIntegerField(default=0, help_text='In a row, probes included.')),
                ('last_error', models.TextField(null=True)),
                ('last_failure_at', models.DateTimeField()),
                ('recovered_at', models.DateTimeField(help_text='When a callback was delivered after failures.', null=True)),
                ('paused_at', models.DateTimeField(null=True)),
                ('probes', models.PositiveIntegerField(default=0, help_text='That failed since it was paused.')),
                ('next_probe_at', models.DateTimeField(null=True)),
                ('probing_until', models.DateTimeField(help_text='A probe is under way, at the latest until then.', null=True)),
            ],
        ),
        migrations.RemoveIndex(
            model_name='callback',
            name='callback_due',
        ),
        migrations.RemoveIndex(
            model_name='callback',
            name='callback_turn',
        ),
        migrations.AddField(
            model_name='callback',
            name='redelivered_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='callback',
            name='waits_since',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name='callbackattempt',
            index=models.Index(models.F('started_at'), name='attempt_started'),
        ),
        migrations.AddField(
            model_name='receiver',
            name='account',
            field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name='+', to='billing.account'),
        ),
        migrations.AddField(
            model_name='receiver',
            name='probe',
            field=models.ForeignKey(help_text='The callback that probes next.', null=True, on_delete=django.db.models.deletion.SET_NULL, related_name='+', to='tasks.callback'),
        ),
        migrations.AddField(
            model_name='callback',
            name='waits_for',
            field=models.ForeignKey(db_index=False, help_text='The paused receiver that it waits for; no try is used up meanwhile.', null=True, on_delete=django.db.models.deletion.PROTECT, related_name='waiting', to='tasks.receiver'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(models.F('next_attempt_at'), condition=models.Q(('status', 'pending'), ('waits_for__isnull', True)), name='callback_due'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(models.F('host'), models.F('next_attempt_at'), models.F('id'), condition=models.Q(('status', 'pending'), ('waits_for__isnull', True)), name='callback_turn'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(models.F('account'), django.db.models.functions.text.MD5(models.Func(models.F('url'), models.Value('?'), models.Value(1), function='split_part', output_field=models.TextField())), condition=models.Q(('status', 'pending'), ('waits_for__isnull', True)), name='callback_receiver'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(models.F('waits_for'), models.F('next_attempt_at'), models.F('id'), condition=models.Q(('waits_for__isnull', False)), name='callback_waiting'),
        ),
        migrations.AddIndex(
            model_name='callback',
            index=models.Index(models.F('waits_since'), condition=models.Q(('waits_for__isnull', False)), name='callback_waits'),
        ),
        migrations.AddConstraint(
            model_name='callback',
            constraint=models.CheckConstraint(condition=models.Q(('status', 'pending'), models.Q(('waits_for__isnull', False), _negated=True), _connector='OR'), name='only_owed_callbacks_wait'),
        ),
        migrations.AddIndex(
            model_name='receiver',
            index=models.Index(models.F('last_failure_at'), name='receiver_failed'),
        ),
        migrations.AddConstraint(
            model_name='receiver',
            constraint=models.UniqueConstraint(models.F('account'), django.db.models.functions.text.MD5('url'), name='one_receiver_an_account_and_url'),
        ),
        migrations.RunSQL(load("waited_receivers"), "DROP FUNCTION waited_receivers"),
        migrations.RunPython(show_receivers, migrations.RunPython.noop),
    ]
