#!/usr/bin/env python
"""The way in for every command: the engines first, then Django."""

import os
import sys

from django.core.management import execute_from_command_line

from config import embedded


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    embedded.adopt_data_folder(sys.argv)
    try:
        if embedded.needs_engines(sys.argv):
            embedded.ensure()
        execute_from_command_line(sys.argv)
    except embedded.EngineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
