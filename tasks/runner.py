"""Run one task: claim it, work with a heartbeat beside, and resolve the run by its lease token."""

import json
import logging
import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from billiard.common import terminate_handler_fired
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from structlog.contextvars import bound_contextvars

from billing.failpoints import here
from tasks import artifacts, capabilities, lifecycle
from tasks.capabilities import CapabilityError, Result
from tasks.exceptions import Invalid, LeaseLost
from tasks.identifiers import public_id
from tasks.interrupts import Interrupted, Watch
from tasks.lifecycle import Claim
from tasks.statuses import ErrorCode, Resolved
from tasks.submission import clean

logger = logging.getLogger(__name__)

MAX_OUTPUT = 2**20
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
MAX_TEXT = 500
AWAY = (OperationalError, InterfaceError)


def run_next(queue: str) -> bool:
    """Claim and run the queue's next task. False says that there was none."""
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


def _work(claimed: Claim, afterwards: ExitStack) -> Callable[[], None]:
    """Do the work; answer with the verb that tells how it ended."""
    watch = Watch(partial(lifecycle.renew, claimed.token), timeout=_seconds(claimed))
    try:
        result = _checked(claimed, watch(_call, claimed))
        if result["files"]:
            afterwards.callback(_leave_no_files, claimed)
            return _stored(claimed, result)
        return partial(lifecycle.succeed, claimed, **result)
    except Interrupted as interrupted:
        connection.close()
        if interrupted.why == "lost":
            return partial(logger.info, "lease lost")
        return _out_of_time(claimed)
    except SystemExit as error:
        connection.close()
        return _given_back(claimed) if terminate_handler_fired() else _crashed(claimed, error)
    except LeaseLost:
        return partial(logger.info, "lease lost")
    except Invalid as error:
        return partial(lifecycle.fail, claimed, code=ErrorCode.INVALID_INPUT, message=error.message)
    except CapabilityError as error:
        return _refused(claimed, error)
    except Exception as error:
        connection.close()
        return _crashed(claimed, error)


def _stored(claimed: Claim, result: dict[str, Any]) -> Callable[[], None]:
    """Store the result's files, with a heartbeat beside; the verb that makes them artifacts, or says why not."""
    _until_answered(partial(artifacts.announce, claimed.token, result["files"]))
    watch = Watch(partial(lifecycle.renew, claimed.token), timeout=settings.ARTIFACT_STORE_SECONDS)
    try:
        watch(artifacts.store, result["files"])
    except Interrupted as interrupted:
        connection.close()
        if interrupted.why == "lost":
            raise LeaseLost from interrupted
        return _not_stored(claimed)
    except Exception:
        logger.exception("the files could not be stored")
        return _not_stored(claimed)
    return partial(lifecycle.succeed, claimed, **result)


def _not_stored(claimed: Claim) -> Callable[[], None]:
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


def _given_back(claimed: Claim) -> Callable[[], None]:
    """Our own shutdown spends no retry."""
    return partial(
        lifecycle.retry,
        claimed,
        code=ErrorCode.WORKER_LOST,
        message="The worker was shut down.",
        resolved=Resolved.WORKER_SHUTDOWN,
        spend=0,
    )


def _crashed(claimed: Claim, error: BaseException) -> Callable[[], None]:
    logger.error("a capability crashed", exc_info=error)
    return partial(
        lifecycle.fail, claimed, code=ErrorCode.CAPABILITY_ERROR, message="The capability ended unexpectedly."
    )


def _out_of_time(claimed: Claim) -> Callable[[], None]:
    if claimed.time_left.total_seconds() < claimed.timeout:
        code, message = ErrorCode.DEADLINE_EXCEEDED, "The deadline passed before the task ended."
    else:
        code, message = ErrorCode.TIMEOUT, f"The run took longer than {claimed.timeout} s."
    return partial(lifecycle.fail, claimed, code=code, message=message)


def _refused(claimed: Claim, error: CapabilityError) -> Callable[[], None]:
    code = ErrorCode(error.code) if error.code in set(ErrorCode) else ErrorCode.CAPABILITY_ERROR
    message = readable(error.message)
    if error.retryable:
        return partial(lifecycle.retry, claimed, code=code, message=message, resolved=Resolved.INTERMITTENT_TASK)
    return partial(lifecycle.fail, claimed, code=code, message=message)


def _call(claimed: Claim) -> Result:
    capability = capabilities.get(claimed.capability)
    if capability is None:
        raise CapabilityError("This worker does not have the capability.", code=ErrorCode.INTERNAL_ERROR)
    return capability.run(clean(capability, claimed.input), RunContext(claimed))


class RunContext:
    """What a running capability may say; every word carries the lease token."""

    EVERY = 0.5

    def __init__(self, claimed: Claim) -> None:
        self.claimed = claimed
        self.attempt, self.resolved_model, self.settings = claimed.attempt, claimed.resolved_model, claimed.settings
        self._texts: list[str] = []
        self._published = 0
        self._text_at = -math.inf

    def progress(self, percent: float | None = None, stage: str | None = None, message: str | None = None) -> None:
        shown = None if percent is None else max(0, min(100, round(percent)))
        with _unless_away():
            lifecycle.progress(
                self.claimed,
                percent=shown,
                stage=readable(stage) if stage else None,
                message=readable(message) if message else None,
            )

    def emit(self, text: str, usage: Mapping[str, int | Decimal] | None = None) -> None:
        """Keep the text so far, with the usage so far, in the run's row: at most every half second."""
        self._texts.append(text)
        now = time.monotonic()
        if now - self._text_at >= self.EVERY:
            said = clean_text("".join(self._texts))
            with _unless_away():
                lifecycle.publish(self.claimed, text=said, offset=self._published, usage=exact(usage or {}))
                self._published += len(said)
                self._texts, self._text_at = [], now


@contextmanager
def _unless_away() -> Iterator[None]:
    """Let the work go on while the database is away: it is heard again when the run is resolved."""
    try:
        yield
    except AWAY:
        connection.close()


def _checked(claimed: Claim, result: Result) -> dict[str, Any]:
    """A result as it may be stored. Raises CapabilityError for undeclared meters, impossible usage or no JSON."""
    if not isinstance(result, Result):
        raise CapabilityError("The capability did not return a Result.")
    capability = capabilities.get(claimed.capability)
    undeclared = set(result.usage) - (capability.meters if capability else frozenset())
    if undeclared:
        raise CapabilityError(f"The capability reported meters it did not declare: {', '.join(sorted(undeclared))}.")
    return {
        "output": _json(result.output),
        "usage": exact(result.usage),
        "warnings": [_warning(warning) for warning in result.warnings],
        "estimated": frozenset(result.estimated),
        "files": artifacts.check(result.artifacts, folder=f"{claimed.task_id}/{claimed.attempt}/{claimed.token}"),
    }


def _json(output: Any) -> Any:
    try:
        text = json.dumps(output, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise CapabilityError("The output is not JSON.") from error
    if size > MAX_OUTPUT:
        raise CapabilityError(f"The output exceeds {MAX_OUTPUT} bytes.")
    if NUL.search(text):
        raise CapabilityError("The output contains a NUL character.")
    return output


def exact(usage: Mapping[str, int | Decimal]) -> dict[str, Decimal]:
    """Usage as exact, finite, non-negative decimals with at most six places."""
    try:
        quantities = {meter: Decimal(str(quantity)).quantize(Decimal("0.000001")) for meter, quantity in usage.items()}
    except InvalidOperation as error:
        raise CapabilityError("The capability reported usage that is no number.") from error
    if not all(quantity.is_finite() and 0 <= quantity < 10**18 for quantity in quantities.values()):
        raise CapabilityError("The capability reported usage that is out of range.")
    return {meter: quantity.normalize() for meter, quantity in quantities.items()}


def _warning(warning: Mapping[str, str | None]) -> dict[str, str | None]:
    return {
        "code": readable(warning.get("code") or "warning"),
        "message": readable(warning.get("message") or ""),
        "field": warning.get("field"),
    }


def readable(text: object) -> str:
    """Text that fits where people read it."""
    return clean_text(str(text))[:MAX_TEXT]


def clean_text(text: str) -> str:
    """Text that PostgreSQL can keep: no NUL, no lone surrogates."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _seconds(claimed: Claim) -> float:
    """How long this run may take: its timeout, or less when the deadline is nearer."""
    return max(0.0, min(claimed.timeout, claimed.time_left.total_seconds()))


def _repeat_until_answered(resolve: Callable[[], Any]) -> None:
    """Resolve the run, unless someone else has."""
    try:
        _until_answered(resolve)
    except LeaseLost:
        logger.info("too late: the run had been resolved by someone else")


def _until_answered(say: Callable[[], Any], *, pause: float = 0.5) -> None:
    """Say it until the database has accepted or refused it: a result is not lost to an outage."""
    while True:
        try:
            say()
        except AWAY:
            logger.warning("the database is away; saying it again")
            connection.close()
            time.sleep(pause)
            pause = min(pause * 2, 5)
            continue
        return
