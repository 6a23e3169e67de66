"""What could be the secret of a key is cut from every text that leaves: logs, tracebacks, errors."""

import logging
import re

import structlog

SECRET = re.compile(r"(cf_(?:live|test)_[0-9A-Za-z]{8})_[0-9A-Za-z]+")


def without_keys(text: str) -> str:
    """The text with what could be a secret key cut down to its prefix."""
    return SECRET.sub(r"\1…", text) if "cf_" in text else text


class Formatter(structlog.stdlib.ProcessorFormatter):
    """Formats an event, its traceback included, without keys."""

    def format(self, record: logging.LogRecord) -> str:
        return without_keys(super().format(record))
