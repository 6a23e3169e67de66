from tasks.models.artifact import Artifact, Upload
from tasks.models.bulk import BulkAction, BulkActionRow
from tasks.models.callback import Callback, CallbackAttempt
from tasks.models.deployment import Deployment
from tasks.models.endpoint import WebhookEndpoint
from tasks.models.event import TaskEvent
from tasks.models.receiver import Receiver
from tasks.models.run import Run
from tasks.models.task import Task
from tasks.models.turn import Turn

__all__ = [
    "Artifact", "BulkAction", "BulkActionRow", "Callback", "CallbackAttempt", "Deployment", "Receiver", "Run", "Task",
    "TaskEvent", "Turn", "Upload", "WebhookEndpoint",
]  # fmt: skip
