#!/usr/bin/env python
"""The way in for every command: the engines first, then Django."""

import os
import sys
from collections.abc import Callable
from functools import partial

from django.core.management import execute_from_command_line
from setproctitle import setproctitle

from config import embedded, session

STAYS = ("up", "demo", "sweep")
TAKES_ITS_ENGINES_ALONG = ("up", "demo")
INTERRUPTED = 130


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    embedded.adopt_data_folder(sys.argv)
    command = "".join(sys.argv[1:2])
    if command in STAYS:
        setproctitle(f"counterfoil: {command}")
    run = partial(execute_from_command_line, sys.argv)
    try:
        if not embedded.needs_engines(sys.argv):
            run()
        elif command in TAKES_ITS_ENGINES_ALONG:
            stay(command, run)
        else:
            embedded.ensure()
            run()
    except embedded.EngineError as error:
        sys.exit(str(error))


def stay(command: str, run: Callable[[], None]) -> None:
    try:
        session.stay(command, run)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
