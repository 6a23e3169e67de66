from tasks.admin import books, callback, deployment, event, people, receiver, run, task

__all__ = ["books", "callback", "deployment", "event", "people", "receiver", "run", "task"]
