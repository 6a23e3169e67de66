"""What is done to a task: each act calls one verb, which owns its transaction."""
