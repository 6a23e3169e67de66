"""What `manage.py audit` proves of tasks, beside the books: the money of each task fits its life."""

from billing import audit
from billing.audit import Check
from tasks.models import Task

COUNTERS = """
SELECT format('account %s counts %s pending and %s running, but has %s and %s', a.id, a.pending, a.running,
    coalesce(t.pending, 0), coalesce(t.running, 0))
FROM billing_account a LEFT JOIN (
    SELECT account_id, count(*) AS pending, count(*) FILTER (WHERE status = 'running') AS running
    FROM tasks_task WHERE status IN ('queued', 'running') GROUP BY account_id) t ON t.account_id = a.id
WHERE (a.pending, a.running) <> (coalesce(t.pending, 0), coalesce(t.running, 0))
ORDER BY a.id LIMIT 1
"""
HELD = """
SELECT format('task %s is %s, was quoted %s and holds %s', t.id, t.status, t.quoted, coalesce(c.held, 0))
FROM tasks_task t LEFT JOIN billing_charge c ON c.task_id = t.id
WHERE coalesce(c.held, 0) <> CASE WHEN t.status IN ('queued', 'running') THEN t.quoted ELSE 0 END
   OR c.account_id <> t.account_id
ORDER BY t.id LIMIT 1
"""
QUOTES = """
SELECT format('task %s was quoted %s and charged %s', t.id, t.quoted, c.charged)
FROM tasks_task t JOIN billing_charge c ON c.task_id = t.id WHERE c.charged > t.quoted
ORDER BY t.id LIMIT 1
"""
ENDS = """
SELECT format('task %s is %s, with %s events of that end and its run %s is %s', t.id, t.status, e.count, t.attempt,
    coalesce(r.status, 'missing'))
FROM tasks_task t LEFT JOIN tasks_run r ON r.task_id = t.id AND r.number = t.attempt
CROSS JOIN LATERAL (SELECT count(*) FROM tasks_taskevent
    WHERE task_id = t.id AND type IN ('task.succeeded', 'task.failed', 'task.canceled')) e
WHERE CASE t.status
    WHEN 'queued' THEN e.count <> 0 OR r.status IS DISTINCT FROM 'pending'
    WHEN 'running' THEN e.count <> 0 OR r.status IS DISTINCT FROM 'running'
    ELSE e.count <> 1 OR r.resolved_at IS NULL END
ORDER BY t.id LIMIT 1
"""
CALLBACKS = """
SELECT format('task %s is %s and owes %s callbacks to %s', t.id, t.status, count(k.id), t.callback_url)
FROM tasks_task t LEFT JOIN tasks_callback k ON k.task_id = t.id
WHERE t.callback_url IS NOT NULL AND t.status NOT IN ('queued', 'running')
GROUP BY t.id HAVING count(k.id) <> 1
ORDER BY t.id LIMIT 1
"""

CHECKS = (
    Check("counters_are_tasks", "An account's counters are the tasks it has.", COUNTERS),
    Check("tasks_hold_their_quotes", "An unfinished task holds its quote, a final one nothing.", HELD),
    Check("charges_stay_within_quotes", "No task was charged above its quote.", QUOTES),
    Check("tasks_end_once", "A task has as many ends as its status says, and so has its run.", ENDS),
    Check("ended_tasks_owe_callbacks", "A final task with a callback URL owes exactly one callback.", CALLBACKS),
)


def register() -> None:
    """Add the checks to the audit; once, when the app is ready."""
    audit.CHECKS.extend(CHECKS)
    audit.COUNTED["tasks"] = Task._meta.db_table
