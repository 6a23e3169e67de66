"""Run one task: claim it, work with a heartbeat beside, and resolve the run by its lease token."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from typing import Any

from billiard.common import terminate_handler_fired
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from structlog.contextvars import bound_contextvars

from billing.failpoints import here
from tasks import artifacts, capabilities, interrupts, lifecycle, results
from tasks.capabilities import Capability, CapabilityError, Usage, test_echo
from tasks.exceptions import Invalid, LeaseLost
from tasks.identifiers import public_id
from tasks.interrupts import Interrupted, Watch
from tasks.lifecycle import Claim
from tasks.results import readable
from tasks.statuses import ErrorCode, Resolved
from tasks.submission import clean

logger = logging.getLogger(__name__)

AWAY = (OperationalError, InterfaceError)


def run_next(queue: str) -> bool:
    """Claim and run the queue's next task. False says that there was none, or that this process is about to end."""
    if interrupts.leaving():
        return False
    with interrupts.at_work():
        claimed = lifecycle.claim(queue, worker=f"{socket.gethostname()}:{os.getpid()}")
        if claimed is None:
            return False
        here("claim.after")
        with bound_contextvars(task=public_id(claimed.task_id), attempt=claimed.attempt):
            _run(claimed)
        return True


def _run(claimed: Claim) -> None:
    logger.info("started")
    with ExitStack() as afterwards:
        resolution = _work(claimed, afterwards)
        here("work.before_resolve")
        try:
            _repeat_until_answered(resolution)
        except Exception:
            logger.exception("a resolution was refused")
            _repeat_until_answered(
                partial(lifecycle.fail, claimed, code=ErrorCode.INTERNAL_ERROR, message="The result was not stored.")
            )
        here("resolve.after")
    logger.info("ended")


def _work(claimed: Claim, afterwards: ExitStack) -> Callable[[], Any]:
    """Do the work; answer with the verb that tells how it ended."""
    try:
        result = _watched(claimed, _interrupted, claimed.timeout)(_call, claimed)
        if result["files"]:
            afterwards.callback(_leave_no_files, claimed)
            return _stored(claimed, result)
        return partial(lifecycle.succeed, claimed, **result)
    except BaseException as error:
        connection.close()
        try:
            return _failed(claimed, error)
        except BaseException:  # an error that cannot even be looked at
            return _crashed(claimed, error)


Told = Callable[[Claim, str], Callable[[], Any]]


def _watched(claimed: Claim, told: Told, timeout: float) -> Watch:
    """A watch over work on this claim; `told` is the verb for work that was stopped."""
    return Watch(
        partial(lifecycle.renew, claimed.token),
        timeout=timeout,
        left=claimed.time_left.total_seconds(),
        abandon=partial(_abandon, claimed, told),
    )


def _failed(claimed: Claim, error: BaseException) -> Callable[[], Any]:
    """The verb for what came out of the work: whatever a capability raises ends its task, and nothing else."""
    match error:
        case Interrupted():
            return _interrupted(claimed, error.why)
        case SystemExit() if terminate_handler_fired():
            return _given_back(claimed)
        case LeaseLost():
            return partial(logger.info, "lease lost")
        case Invalid():
            return partial(lifecycle.fail, claimed, code=ErrorCode.INVALID_INPUT, message=error.message)
        case CapabilityError():
            return _refused(claimed, error)
    return _crashed(claimed, error)


def _interrupted(claimed: Claim, why: str) -> Callable[[], Any]:
    match why:
        case "timeout":
            message = f"The run took longer than {claimed.timeout} s."
            return partial(lifecycle.fail, claimed, code=ErrorCode.TIMEOUT, message=message)
        case "deadline":
            message = "The deadline passed before the task ended."
            return partial(lifecycle.fail, claimed, code=ErrorCode.DEADLINE_EXCEEDED, message=message)
        case "shutdown":
            return _given_back(claimed)
    return partial(logger.info, "lease lost")


def _abandon(claimed: Claim, told: Told, why: str) -> None:
    """Resolve the run of work that does not yield, before its process ends."""
    with bound_contextvars(task=public_id(claimed.task_id), attempt=claimed.attempt):
        logger.warning("the work does not yield; its process ends", extra={"why": why})
        told(claimed, why)()


def _stored(claimed: Claim, result: dict[str, Any]) -> Callable[[], Any]:
    """Store the result's files, with a heartbeat beside; the verb that makes them artifacts, or says why not."""
    try:
        _until_answered(partial(artifacts.announce, claimed.token, result["files"]))
    except AWAY:
        return _given_back(claimed)
    try:
        _watched(claimed, _storing_interrupted, settings.ARTIFACT_STORE_SECONDS)(artifacts.store, result["files"])
    except Interrupted as interrupted:
        connection.close()
        return _storing_interrupted(claimed, interrupted.why)
    except Exception:
        logger.exception("the files could not be stored")
        return _not_stored(claimed)
    return partial(lifecycle.succeed, claimed, **result)


def _storing_interrupted(claimed: Claim, why: str) -> Callable[[], Any]:
    return _not_stored(claimed) if why == "timeout" else _interrupted(claimed, why)


def _not_stored(claimed: Claim) -> Callable[[], Any]:
    return partial(
        lifecycle.retry,
        claimed,
        code=ErrorCode.INTERNAL_ERROR,
        message="The files could not be stored.",
        resolved=Resolved.RESOURCE_UNAVAILABLE,
    )


def _leave_no_files(claimed: Claim) -> None:
    """Delete what was stored for a result that nobody took; what cannot be deleted now the sweeper deletes."""
    try:
        artifacts.discard(claimed.token)
    except Exception:
        logger.warning("files stay for the sweeper", exc_info=True)
        connection.close()


def _given_back(claimed: Claim) -> Callable[[], Any]:
    """Our own shutdown spends no retry, unless it follows the task wherever it goes."""
    return partial(lifecycle.give_back, claimed)


def _crashed(claimed: Claim, error: BaseException) -> Callable[[], Any]:
    """The customer reads the kind of error alone: its text may tell of the operator's secrets, and goes to the log."""
    logger.error("a capability crashed", exc_info=error)
    message = f"The capability ended unexpectedly: {type(error).__name__}."
    return partial(lifecycle.fail, claimed, code=ErrorCode.CAPABILITY_ERROR, message=readable(message))


def _refused(claimed: Claim, error: CapabilityError) -> Callable[[], Any]:
    code = ErrorCode(error.code) if error.code in list(ErrorCode) else ErrorCode.CAPABILITY_ERROR
    message = readable(error.message)
    logger.warning("a capability refused: %s", message, extra={"code": code}, exc_info=error.__cause__)
    if error.retryable:
        return partial(lifecycle.retry, claimed, code=code, message=message, resolved=Resolved.INTERMITTENT_TASK)
    return partial(lifecycle.fail, claimed, code=code, message=message)


def _call(claimed: Claim) -> dict[str, Any]:
    """The capability's result, ready to be stored. All that it makes us do is done under the watch."""
    capability = capabilities.get(test_echo.NAME if claimed.test else claimed.capability)
    if capability is None:
        raise CapabilityError("This worker does not have the capability.", code=ErrorCode.INTERNAL_ERROR)
    input_ = _rehearsal(claimed) if claimed.test else claimed.input
    context = RunContext(claimed, capability)
    try:
        result = capability.run(clean(capability, input_), context)
    finally:
        context.say_the_rest()
    folder = f"{claimed.task_id}/{claimed.attempt}/{claimed.token}"
    return results.checked(capability, result) | {"files": artifacts.check(result.artifacts, folder=folder)}


def _rehearsal(claimed: Claim) -> dict[str, Any]:
    """What test.echo is told in place of the capability; a test of test.echo itself is told what its client says."""
    if claimed.capability != test_echo.NAME:
        return test_echo.rehearsal(claimed.capability, claimed.quote["bound"], outcome=claimed.test_outcome)
    return claimed.input | ({"fail": test_echo.told(claimed.test_outcome)} if claimed.test_outcome else {})


class RunContext:
    """What a running capability may say; every word carries the lease token."""

    EVERY = 0.5
    PROGRESS_EVERY = 0.2

    def __init__(self, claimed: Claim, capability: Capability) -> None:
        self.claimed, self.capability = claimed, capability
        self.attempt, self.resolved_model, self.settings = claimed.attempt, claimed.resolved_model, claimed.settings
        self._texts: list[str] = []
        self._bytes = self._published = 0
        self._text_at = self._progress_at = -math.inf
        self._used: dict[str, Decimal] = {}
        self._unshown: dict[str, Any] | None = None
        self._stage: str | None = None

    def progress(self, percent: float | None = None, stage: str | None = None, message: str | None = None) -> None:
        """Show how far the work is: a new stage at once, the rest at most five times a second, the last at the end."""
        shown = {
            "percent": results.percent(percent),
            "stage": readable(stage) if stage else None,
            "message": readable(message) if message else None,
        }
        self._unshown = shown
        if shown["stage"] != self._stage or time.monotonic() - self._progress_at >= self.PROGRESS_EVERY:
            self._show(shown)

    def emit(self, text: str, usage: Usage | None = None) -> None:
        """Keep the text so far, with the usage so far, in the run's row: at most every half second, and a megabyte; the
        rest at the end."""
        piece, used = results.text(text), results.measured(self.capability, usage or {})
        size = len(piece.encode())
        if self._bytes + size > results.MAX_OUTPUT:
            raise CapabilityError(f"The streamed text exceeds {results.MAX_OUTPUT} bytes.")
        self._bytes += size
        self._texts.append(piece)
        self._used = used
        if time.monotonic() - self._text_at >= self.EVERY:
            self._publish()

    def say_the_rest(self) -> None:
        """What was said too soon after something else, when the work is over, however it ended."""
        if self._unshown is not None:
            self._show(self._unshown)
        if self._texts:
            self._publish()

    def _show(self, shown: dict[str, Any]) -> None:
        self._unshown, self._stage, self._progress_at = None, shown["stage"], time.monotonic()
        with _unless_away():
            lifecycle.progress(self.claimed, **shown)

    def _publish(self) -> None:
        said = "".join(self._texts)
        with _unless_away():
            lifecycle.publish(self.claimed, text=said, offset=self._published, usage=self._used)
            self._published += len(said)
            self._texts, self._text_at = [], time.monotonic()


@contextmanager
def _unless_away() -> Iterator[None]:
    """Let the work go on while the database is away: it is heard again when the run is resolved."""
    try:
        yield
    except AWAY:
        connection.close()


def _repeat_until_answered(resolve: Callable[[], Any]) -> None:
    """Resolve the run, unless someone else has."""
    try:
        _until_answered(resolve)
    except LeaseLost:
        logger.info("too late: the run had been resolved by someone else")
    except AWAY:
        logger.exception("the database is away; the run is left to its lease")


def _until_answered(say: Callable[[], Any], *, pause: float = 0.5) -> None:
    """Say it until the database has accepted or refused it: a result is not lost to an outage.

    A process that is to end says it for its grace only, and then raises what it heard.
    """
    patience = math.inf
    while True:
        try:
            say()
        except AWAY:
            connection.close()
            if interrupts.leaving():
                patience = min(patience, time.monotonic() + interrupts.SHUTDOWN_GRACE_SECONDS)
            if time.monotonic() >= patience:
                raise
            logger.warning("the database is away; saying it again")
            time.sleep(pause)
            pause = min(pause * 2, 5, settings.LEASE_SECONDS / 4)  # no heartbeat goes on beside it
            continue
        return
