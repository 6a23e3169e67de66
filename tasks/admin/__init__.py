from tasks.admin import books, callback, deployment, event, people, run, task

__all__ = ["books", "callback", "deployment", "event", "people", "run", "task"]
