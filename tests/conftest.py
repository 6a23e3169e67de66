"""What every test needs of the database."""

import pgtrigger
import pytest
from django.db.backends.postgresql.operations import DatabaseOperations


def _guards(action: str) -> list[str]:
    return [
        f'ALTER TABLE "{model._meta.db_table}" {action} TRIGGER {trigger.get_pgid(model)}'
        for model, trigger in pgtrigger.registered()
        if trigger.operation == pgtrigger.Truncate
    ]


@pytest.fixture(autouse=True, scope="session")
def _flush_past_the_guards():
    """Let the flush between `transaction=True` tests truncate; the guards are on again when it commits."""
    plain = DatabaseOperations.execute_sql_flush

    def flush(self, sql_list):
        return plain(self, [*_guards("DISABLE"), *sql_list, *_guards("ENABLE")])

    DatabaseOperations.execute_sql_flush = flush
    yield
    DatabaseOperations.execute_sql_flush = plain
