"""What the task machine refuses, each with the code and the HTTP status an API answers with."""

from billing.exceptions import REFUSALS, Refusal


class Invalid(Refusal):
    """The request is understood and not acceptable; `param` points at the value."""


class UnsupportedCapability(Refusal):
    code, message = "unsupported_capability", "No active deployment offers this capability."


class UnsupportedModel(Refusal):
    code, message = "unsupported_model", "No active deployment has this name."


class TooManyPendingTasks(Refusal):
    code, status, retryable, retry_after = "too_many_pending_tasks", 429, True, 5
    message = "As many tasks are unfinished as are allowed; wait for some to end."


class IdempotencyKeyReused(Refusal):
    code, status = "idempotency_key_reused", 409
    message = "This Idempotency-Key belongs to a request with another body."


class TaskNotFound(Refusal):
    code, status, message = "task_not_found", 404, "There is no such task."


class TaskNotFinal(Refusal):
    code, status, message = "task_not_final", 409, "The task, or its newest rerun, has not ended yet."


class TaskNotQueued(Refusal):
    code, status, message = "task_not_queued", 409, "Only a queued task is paused or resumed; this one is not."


class TaskEnded(Refusal):
    code, status, message = "task_ended", 409, "The task has ended; nothing about it changes any more."


class ContentDeleted(Refusal):
    code, status, message = "gone", 410, "The task's content was deleted, so it cannot run again."


class NoCallback(Refusal):
    code, status, message = "not_found", 404, "The task has no callback."


class NoEndpoint(Refusal):
    code, status, message = "not_found", 404, "There is no such webhook endpoint."


class EndpointExists(Refusal):
    code, status, message = "endpoint_exists", 409, "The account has a webhook endpoint of this URL."


class TooManyEndpoints(Refusal):
    code, status, message = "too_many_endpoints", 409, "The account has ten webhook endpoints, which is the most."


class IllegalMove(Exception):
    """The table of statuses has no such move."""

    def __init__(self, status: str, to: str) -> None:
        super().__init__(f"{status} to {to}")


class LeaseLost(Exception):
    """The run's token was refused: whatever this worker did changes nothing."""


REFUSALS["pending_limit"] = TooManyPendingTasks
REFUSALS["one_unfinished_task_a_chain"] = TaskNotFinal
