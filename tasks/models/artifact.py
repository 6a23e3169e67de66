import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from billing.triggers import HardTrigger, refusal
from tasks.models.run import Run
from tasks.models.task import Task


class Artifact(models.Model):
    """A file that a task made. Its row is written by the resolving transaction only, and stays when the file goes."""

    id = models.BigAutoField(primary_key=True)
    # A task is purged after its files: whoever deletes this row deletes the file first.
    task = models.ForeignKey(Task, models.PROTECT, related_name="artifacts", db_index=False)
    run = models.ForeignKey(Run, models.PROTECT, related_name="artifacts", db_index=False)
    name = models.CharField(max_length=100)
    content_type = models.CharField(max_length=100)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)
    key = models.CharField(max_length=300, help_text="Where the storage has it: <task>/<run>/<token>/<name>.")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(help_text="From then on it is not given out.")
    deleted_at = models.DateTimeField(null=True, help_text="When the file was deleted.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "name"], name="artifacts_of_a_task_are_named"),
            models.CheckConstraint(name="an_artifact_has_a_size", condition=Q(size__gte=0)),
            models.CheckConstraint(
                name="only_an_expired_artifact_is_deleted",
                condition=Q(deleted_at__isnull=True) | Q(deleted_at__gte=F("expires_at")),
            ),
        ]
        indexes = [models.Index("expires_at", condition=Q(deleted_at__isnull=True), name="artifact_expiry")]
        triggers = [
            HardTrigger(
                name="an_artifact_comes_with_the_end",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="IF NOT EXISTS (SELECT FROM tasks_task t JOIN tasks_run r ON r.task_id = t.id "
                "AND r.number = t.attempt WHERE t.id = NEW.task_id AND r.id = NEW.run_id "
                "AND t.status = 'running') THEN "
                + refusal("an_artifact_comes_with_the_end", "Only the run that resolves a task gives it artifacts")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="an_artifact_never_changes",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf(
                    "task_id", "run_id", "name", "content_type", "size", "sha256", "key", "created_at"
                ),
                func=refusal("an_artifact_never_changes", "An artifact never changes"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.task_id}"


class Upload(models.Model):
    """Files that a run puts into the storage, written before the first of them: whoever dies, they can be found.

    The row goes when they have become artifacts, in the same transaction; when their worker has deleted them; or a day
    after the sweeper has, for what a worker that was frozen or a slow storage brought meanwhile.
    """

    token = models.UUIDField(primary_key=True, help_text="The run's lease token.")
    keys = ArrayField(models.TextField())
    created_at = models.DateTimeField(db_default=Now())
    emptied_at = models.DateTimeField(null=True, help_text="When the sweeper deleted them.")

    class Meta:
        indexes = [models.Index("created_at", name="upload_age")]

    def __str__(self) -> str:
        return str(self.token)
