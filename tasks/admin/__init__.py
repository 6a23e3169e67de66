from tasks.admin import account, books, callback, deployment, endpoint, event, login, people, receiver, run, task

__all__ = [
    "account",
    "books",
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
