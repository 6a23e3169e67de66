"""The service that people look at: its addresses, its tasks, and its rows as the database has them."""

import json
import urllib.error
import urllib.request
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tasks.identifiers import parse_id
from tests.config.running import Up, until

PASSWORD = "correct horse battery staple"
FINAL = ("succeeded", "failed", "canceled")


class Place:
    """A running service and an account of it, whose tasks are tested on."""

    def __init__(self, up: Up, account_id: str, key: str, sockets: str) -> None:
        self.up, self.account_id, self.key = up, account_id, key
        self.url = f"http://127.0.0.1:{up.port}"
        self.database = psycopg.connect(
            host=sockets, dbname="counterfoil", user="counterfoil", autocommit=True, row_factory=dict_row
        )
        # What people's browsers keep after they have logged in.
        self.sessions: dict[str, Any] = {}

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        return self.database.execute(statement, values).fetchall()

    def row(self, statement: str, *values: object) -> dict[str, Any]:
        [row] = self.rows(statement, *values)
        return row

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """What the API answers to the account's key."""
        asked = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def in_a_day(self) -> str:
        return self.row("SELECT to_char(now() + '1 day', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS moment")["moment"]

    def submit(self, *, ended: bool = False, **fields: Any) -> "Known":
        """A task of the account; one that is to have ended is waited for."""
        body = {"model": "echo", "input": {"seconds": 0, "text": "an echo", "usage": {"characters": 1000}}} | fields
        task = Known(self, self.ask("POST", "/v1/tasks", body)["task_id"])
        if ended:
            until(lambda: task.status() in FINAL)
        return task


class Known:
    """A task: its id as people read it, and what is recorded of it."""

    def __init__(self, place: Place, name: str) -> None:
        self.place, self.name = place, name
        self.pk = parse_id(name)

    def status(self) -> str:
        return self.row()["status"]

    def row(self) -> dict[str, Any]:
        return self.place.row("SELECT * FROM tasks_task WHERE id = %s", self.pk)

    def events(self) -> list[dict[str, Any]]:
        return self.place.rows("SELECT * FROM tasks_taskevent WHERE task_id = %s ORDER BY seq", self.pk)

    def transfers(self) -> list[dict[str, Any]]:
        return self.place.rows("SELECT * FROM billing_transfer WHERE task_id = %s ORDER BY account_seq", self.pk)

    def history(self) -> list[str]:
        """Who did what, by the admin's history."""
        rows = self.place.rows(
            "SELECT u.username || ': ' || l.change_message AS told FROM django_admin_log l JOIN auth_user u"
            " ON u.id = l.user_id WHERE l.object_id = %s ORDER BY l.id",
            str(self.pk),
        )
        return [row["told"] for row in rows]
