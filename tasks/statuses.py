"""A task's life as a table. The database enforces the same table by trigger."""

from enum import StrEnum


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.FAILED, Status.CANCELED}),
    Status.RUNNING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELED: frozenset(),
}
FINAL = frozenset(status for status, following in MOVES.items() if not following)
UNFINISHED = frozenset(MOVES) - FINAL


class ErrorCode(StrEnum):
    """Why a task failed: the `error.code` of the task object."""

    CAPABILITY_ERROR = "capability_error"
    INVALID_INPUT = "invalid_input"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    WORKER_LOST = "worker_lost"
    DEPENDENCY_FAILED = "dependency_failed"
    INTERNAL_ERROR = "internal_error"


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXCEPTION = "exception"


class Created(StrEnum):
    """Why a run exists."""

    SCHEDULED = "scheduled"
    RETRY = "retry"
    TASK_RETRY = "task_retry"
    RERUN = "rerun"


class Resolved(StrEnum):
    """Why a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    CLAIM_EXPIRED = "claim_expired"
    WORKER_SHUTDOWN = "worker_shutdown"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    MALFORMED_PAYLOAD = "malformed_payload"
    UPSTREAM_ERROR = "upstream_error"
    RESOURCE_UNAVAILABLE = "resource_unavailable"
    INTERMITTENT_TASK = "intermittent_task"
    INTERNAL_ERROR = "internal_error"
