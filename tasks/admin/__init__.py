from tasks.admin import books, callback, deployment, endpoint, event, people, receiver, run, task

__all__ = ["books", "callback", "deployment", "endpoint", "event", "people", "receiver", "run", "task"]
