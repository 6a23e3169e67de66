#!/usr/bin/env python
"""The way in for every command: the engines first, then Django."""

import os
import sys

from django.core.management import execute_from_command_line
from setproctitle import setproctitle

from config import embedded

STAYS = ("up", "demo", "sweep")
TAKES_ITS_ENGINES_ALONG = ("up", "demo")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    embedded.adopt_data_folder(sys.argv)
    command = "".join(sys.argv[1:2])
    if command in STAYS:
        setproctitle(f"counterfoil: {command}")
    try:
        started = embedded.ensure() if embedded.needs_engines(sys.argv) else embedded.Started()
        try:
            execute_from_command_line(sys.argv)
        finally:
            if command in TAKES_ITS_ENGINES_ALONG and started != embedded.Started():
                embedded.stop(embedded.layout(), started)
    except embedded.EngineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
