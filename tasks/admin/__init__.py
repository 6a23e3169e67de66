from tasks.admin import (
    account,
    books,
    callback,
    deployment,
    endpoint,
    event,
    login,
    people,
    ratecard,
    receiver,
    run,
    task,
)
from tasks.admin.bulk import screen

__all__ = [
    "account",
    "books",
    "callback",
    "deployment",
    "endpoint",
    "event",
    "login",
    "people",
    "ratecard",
    "receiver",
    "run",
    "screen",
    "task",
]
