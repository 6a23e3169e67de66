from tasks.admin import account, books, bulk, callback, deployment, endpoint, event, login, people, receiver, run, task

__all__ = [
    "account",
    "books",
    "bulk",
    "callback",
    "deployment",
    "endpoint",
    "event",
    "login",
    "people",
    "receiver",
    "run",
    "task",
]
