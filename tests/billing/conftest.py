"""Books alone: billing knows a task by its id, and what is held here is for tasks that have no row."""

import pytest

from billing import audit


@pytest.fixture(autouse=True)
def _without_rows_of_tasks(monkeypatch):
    monkeypatch.setattr(audit, "CHECKS", [check for check in audit.CHECKS if check.name != "holds_have_their_tasks"])
