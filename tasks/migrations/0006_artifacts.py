"""Files that tasks make."""

import billing.triggers
import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import pgtrigger.compiler
import pgtrigger.migrations
from django.db import migrations, models

from tasks.sql import load


class Migration(migrations.Migration):

    dependencies = [
        ('tasks', '0005_receivers'),
    ]

    operations = [
        migrations.CreateModel(
            name='Upload',
            fields=[
                ('token', models.UUIDField(help_text="The run's lease token.", primary_key=True, serialize=False)),
                ('keys', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'indexes': [models.Index(models.F('created_at'), name='upload_age')],
            },
        ),
        migrations.CreateModel(
            name='Artifact',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('name', models.CharField(max_length=100)),
                ('content_type', models.CharField(max_length=100)),
                ('size', models.BigIntegerField()),
                ('sha256', models.CharField(max_length=64)),
                ('key', models.CharField(help_text='Where the storage has it: <task>/<run>/<token>/<name>.', max_length=300)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField(help_text='From then on it is not given out.')),
                ('deleted_at', models.DateTimeField(help_text='When the file was deleted.', null=True)),
                ('run', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='artifacts', to='tasks.run')),
                ('task', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='artifacts', to='tasks.task')),
            ],
            options={
                'indexes': [models.Index(models.F('expires_at'), condition=models.Q(('deleted_at__isnull', True)), name='artifact_expiry')],
                'constraints': [models.UniqueConstraint(fields=('task', 'name'), name='artifacts_of_a_task_are_named'), models.CheckConstraint(condition=models.Q(('size__gte', 0)), name='an_artifact_has_a_size'), models.CheckConstraint(condition=models.Q(('deleted_at__isnull', True), ('deleted_at__gte', models.F('expires_at')), _connector='OR'), name='only_an_expired_artifact_is_deleted')],
            },
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='artifact',
            trigger=pgtrigger.compiler.Trigger(name='an_artifact_comes_with_the_end', sql=billing.triggers.HardSql(func="IF NOT EXISTS (SELECT FROM tasks_task t JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt WHERE t.id = NEW.task_id AND r.id = NEW.run_id AND t.status = 'running') THEN RAISE EXCEPTION USING ERRCODE='CF001', CONSTRAINT='an_artifact_comes_with_the_end', MESSAGE='Only the run that resolves a task gives it artifacts', TABLE=TG_TABLE_NAME; END IF; RETURN NEW;", hash='d04b0108a0d3cfffcb5cfcb14c55e510c8b0d133', operation='INSERT', pgid='pgtrigger_an_artifact_comes_with_the_end_a26b3', table='tasks_artifact', when='BEFORE')),
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='artifact',
            trigger=pgtrigger.compiler.Trigger(name='an_artifact_never_changes', sql=billing.triggers.HardSql(func="RAISE EXCEPTION USING ERRCODE='CF001', CONSTRAINT='an_artifact_never_changes', MESSAGE='An artifact never changes', TABLE=TG_TABLE_NAME;", hash='800c6c5c7bdd16ab9b3bba30bca253d1c8d9c00f', operation='UPDATE OF "task_id", "run_id", "name", "content_type", "size", "sha256", "key", "created_at"', pgid='pgtrigger_an_artifact_never_changes_9d898', table='tasks_artifact', when='BEFORE')),
        ),
        # A task's JSON shows its artifacts from here on.
        migrations.RunSQL(load("task_json"), migrations.RunSQL.noop),
    ]
