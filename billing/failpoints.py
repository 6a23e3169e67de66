"""Places between two lines where a process can be made to die, named in the code: `here("claim.after")`.

`FAILPOINTS` names a folder. Who passes a place that has a file of its name there renames the file to `<name>.<pid>` and
dies at once by SIGKILL; a number in the file lets so many pass that the process dies at its n-th. Only one process dies
of a file, so whoever is started in its stead lives. Without `FAILPOINTS` a place costs one comparison.
"""

import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

from django.db import transaction

FOLDER = os.environ.get("FAILPOINTS", "")
if FOLDER and not Path(FOLDER).is_dir():
    raise NotADirectoryError(f"FAILPOINTS names a folder, and there is none at {FOLDER}.")

_passed: Counter[str] = Counter()


def here(name: str) -> None:
    """Die here, if somebody wants that of whoever passes."""
    if FOLDER:
        _pass(name, Path(FOLDER, name))


def once_committed(name: str) -> None:
    """Die as soon as the transaction around this has been committed, if somebody wants that."""
    if FOLDER:
        transaction.on_commit(partial(here, name))


def _pass(name: str, wanted: Path) -> None:
    try:
        at = int(wanted.read_text() or 1)
        _passed[name] += 1
        if _passed[name] < at:
            return
        wanted.rename(f"{wanted}.{os.getpid()}")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
