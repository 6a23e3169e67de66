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
# Tasks are purged when they are final and hold nothing.
ORPHANS = """
SELECT format('charge of task %s: holds %s, but there is no such task', c.task_id, c.held)
FROM billing_charge c WHERE c.held > 0 AND NOT EXISTS (SELECT 1 FROM tasks_task t WHERE t.id = c.task_id)
ORDER BY c.task_id LIMIT 1
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
FROM tasks_task t LEFT JOIN tasks_callback k ON k.task_id = t.id AND k.endpoint_id IS NULL
WHERE t.callback_url IS NOT NULL AND t.status NOT IN ('queued', 'running')
GROUP BY t.id HAVING count(k.id) <> 1
ORDER BY t.id LIMIT 1
"""

# A price of a quote is its row, was in effect and never withdrawn, and the bound at those prices, each rounded half to
# even once, is the ceiling; the flat price counts one task, and a waived task is quoted nothing.
QUOTED = """
SELECT format('task %s was quoted %s (waived: %s), but %s at its prices', t.id, t.quoted, t.waived,
    trim_scale(q.ceiling))
FROM tasks_task t CROSS JOIN LATERAL (
    SELECT coalesce(sum(div(n.exact, n.size) + CASE
            WHEN 2 * mod(n.exact, n.size) > n.size
              OR (2 * mod(n.exact, n.size) = n.size AND mod(div(n.exact, n.size), 2) = 1) THEN 1 ELSE 0 END), 0) / 10000
            AS ceiling,
        coalesce(bool_and((r.meter, r.unit, r.unit_size, r.credits)
            IS NOT DISTINCT FROM (p.meter, p.unit, p.unit_size, p.credits) AND p.effective_from <= t.created_at
            AND w.price_id IS NULL), true)
            AS priced
    FROM jsonb_to_recordset(t.quote -> 'rates') r(price_id uuid, meter text, unit text, unit_size int, credits numeric)
    LEFT JOIN billing_price p ON p.id = r.price_id
    LEFT JOIN billing_pricewithdrawal w ON w.price_id = r.price_id
    CROSS JOIN LATERAL (SELECT r.unit_size::numeric AS size, 10000 * r.credits * CASE WHEN r.meter = 'task' THEN 1
        ELSE coalesce((t.quote -> 'bound' ->> r.meter)::numeric, 0) END AS exact) n) q
WHERE t.quoted <> CASE WHEN t.waived THEN 0 ELSE q.ceiling END OR NOT q.priced
   OR (t.quote ->> 'ceiling_credits')::numeric IS DISTINCT FROM t.quoted
ORDER BY t.id LIMIT 1
"""
LINES = """
SELECT format('line %s of task %s: %s of %s, place %s, reference %s', l.id, l.task_id, l.quantity, l.meter, l.position,
    l.usd_reference)
FROM tasks_task t JOIN (
    SELECT *, row_number() OVER (PARTITION BY task_id ORDER BY position) - 1 AS place FROM billing_usageline
) l ON l.task_id = t.id
WHERE l.account_id <> t.account_id OR l.position <> l.place OR t.status IN ('queued', 'running')
   OR l.usd_reference <> round(l.billed_amount::numeric(40, 16) / t.usd_rate, 7)
   OR l.quantity IS DISTINCT FROM CASE WHEN l.meter = 'task' THEN 1 ELSE (t.usage ->> l.meter)::numeric END
   OR NOT t.quote -> 'rates' @> jsonb_build_array(jsonb_build_object('price_id', l.price_id))
ORDER BY l.id LIMIT 1
"""
USED = """
SELECT format('task %s used %s of %s, priced, without a line', t.id, u.value, u.key)
FROM tasks_task t CROSS JOIN LATERAL jsonb_each_text(
    CASE WHEN t.status = 'succeeded' THEN t.usage || '{"task": 1}' ELSE t.usage END) u
WHERE u.value::numeric > 0
  AND t.quote -> 'rates' @> jsonb_build_array(jsonb_build_object('meter', u.key))
  AND NOT EXISTS (SELECT 1 FROM billing_usageline l WHERE l.task_id = t.id AND l.meter = u.key)
ORDER BY t.id LIMIT 1
"""
WARNED = """
SELECT format('task %s was billed %s of %s listed, and is warned of: %s', t.id, l.billed, l.listed, t.warnings)
FROM tasks_task t LEFT JOIN (
    SELECT task_id, sum(billed_amount) AS billed, sum(listed_amount) AS listed FROM billing_usageline GROUP BY task_id
) l ON l.task_id = t.id
WHERE t.warnings @> '[{"code": "usage_exceeds_quote"}]' <> (coalesce(l.listed > l.billed, false) AND NOT t.waived)
   OR (t.waived AND l.billed > 0)
ORDER BY t.id LIMIT 1
"""
# Only what ended in the middle of its work is billed, by its quote's leave, and never the flat price.
ENDED_FREE = """
SELECT format('task %s is %s (%s), and was charged %s', t.id, t.status, t.error ->> 'code', c.charged)
FROM tasks_task t JOIN billing_charge c ON c.task_id = t.id
WHERE c.charged > 0 AND t.status <> 'succeeded' AND (
    t.status IN ('queued', 'running') OR t.error ->> 'code' NOT IN ('timeout', 'deadline_exceeded')
    OR NOT coalesce((t.quote ->> 'bills_partial_output')::boolean, false)
    OR EXISTS (SELECT 1 FROM billing_usageline l WHERE l.task_id = t.id AND l.meter = 'task' AND l.billed_amount > 0))
ORDER BY t.id LIMIT 1
"""
RUNS = """
SELECT format('task %s, %s since %s, run %s of %s: %s, created for %s, resolved as %s at %s', coalesce(t.id, r.task_id),
    t.status, coalesce(t.completed_at, t.started_at, t.created_at), r.number, t.attempt, r.status, r.reason_created,
    r.reason_resolved, r.resolved_at)
FROM tasks_task t FULL JOIN (
    SELECT *, row_number() OVER w AS place, count(*) OVER (PARTITION BY task_id) AS count,
        min(started_at) OVER (PARTITION BY task_id) AS first_start,
        count(*) FILTER (WHERE number < last AND reason_resolved <> 'worker_shutdown') OVER (PARTITION BY task_id)
            AS tries
    FROM (SELECT *, max(number) OVER (PARTITION BY task_id) AS last FROM tasks_run) r
    WINDOW w AS (PARTITION BY task_id ORDER BY number)) r ON r.task_id = t.id
WHERE r.id IS NULL OR t.id IS NULL OR r.number <> r.place OR r.count <> t.attempt
   OR r.first_start IS DISTINCT FROM t.started_at
   OR (r.reason_created IN ('retry', 'task_retry')) <> (r.number > 1)
   OR (r.number = 1 AND (r.reason_created = 'rerun') <> (t.rerun_root IS NOT NULL))
   OR (t.rerun_of_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks_task o
        WHERE o.id = t.rerun_of_id AND coalesce(o.rerun_root, o.id) = t.rerun_root))
   OR (r.status IN ('pending', 'running')) <> (r.reason_resolved IS NULL)
   OR (r.resolved_at IS NULL) <> (r.reason_resolved IS NULL) OR (r.status = 'pending' AND r.usage <> '{}')
   OR (r.worker IS NULL) <> (r.started_at IS NULL) OR (r.status IN ('running', 'succeeded') AND r.started_at IS NULL)
   OR (r.status = 'running') <> (r.lease_token IS NOT NULL) OR (r.lease_token IS NULL) <> (r.lease_expires_at IS NULL)
   OR (r.number < t.attempt AND (r.status <> 'exception' OR r.reason_resolved IN ('completed', 'canceled')))
   OR (r.number = t.attempt AND (
        t.completed_at IS DISTINCT FROM r.resolved_at
        OR (t.status = 'succeeded') <> (r.status = 'succeeded')
        OR (t.status = 'succeeded') <> (coalesce(r.reason_resolved, '') = 'completed')
        OR (t.status = 'canceled') <> (coalesce(r.reason_resolved, '') = 'canceled')
        OR (t.status = 'canceled' AND r.status <> 'exception')
        OR (t.completed_at IS NOT NULL AND t.usage <> r.usage)
        OR (t.completed_at IS NULL AND t.usage <> '{}')
        OR (t.status IN ('failed', 'canceled') AND t.content_deleted_at IS NULL
            AND t.output #>> '{}' IS DISTINCT FROM CASE WHEN EXISTS (
                SELECT 1 FROM billing_usageline l WHERE l.task_id = t.id) THEN r.partial_text END)))
   OR t.blocked > cardinality(t.depends_on) OR (t.blocked > 0 AND t.started_at IS NOT NULL)
   OR t.deadline < t.created_at OR t.expires_at < t.created_at
   OR NOT t.retries_left BETWEEN t.max_retries - (t.attempt - 1) AND t.max_retries - r.tries
   OR t.cancel_requested_at IS DISTINCT FROM CASE WHEN t.status = 'canceled' THEN t.completed_at END
   OR (t.status = 'failed') <> (t.error IS NOT NULL) OR (t.completed_at IS NULL AND t.output IS NOT NULL)
   OR (t.status <> 'canceled' AND t.cancel_reason IS NOT NULL)
   OR (t.content_deleted_at IS NOT NULL AND (t.input::text <> '{}' OR t.output IS NOT NULL))
ORDER BY coalesce(t.id, r.task_id), r.number LIMIT 1
"""
EVENTS = """
SELECT format('task %s, %s in %s runs, is at %s; its events say %s', t.id, t.status, t.attempt, t.seq, e.told)
FROM tasks_task t CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE type = 'task.queued') AS queued,
        count(*) FILTER (WHERE type = 'task.running') AS running,
        count(*) FILTER (WHERE type = 'task.' || t.status AND t.completed_at IS NOT NULL) AS ended,
        count(*) FILTER (WHERE type = 'task.paused') - count(*) FILTER (WHERE type = 'task.resumed') AS paused,
        ((array_agg(data ->> 'priority' ORDER BY seq DESC) FILTER (WHERE type = 'task.priority_changed'))[1])::int
            AS priority,
        ((array_agg(data ->> 'deadline' ORDER BY seq DESC) FILTER (WHERE type = 'task.deadline_extended'))[1])
            ::timestamptz AS deadline,
        max(seq) AS last, string_agg(type, ', ' ORDER BY seq) AS told,
        bool_and(CASE type
            WHEN 'task.queued' THEN CASE WHEN seq > 1 THEN (data ->> 'reason') IS NOT DISTINCT FROM (
                    SELECT reason_resolved FROM tasks_run r
                    WHERE r.task_id = t.id AND r.number = (data ->> 'attempt')::int - 1)
                ELSE (data ->> 'held_credits')::numeric IS NOT DISTINCT FROM t.quoted
                AND coalesce((data ->> 'waived')::boolean, false) = t.waived END
            WHEN 'task.running' THEN EXISTS (SELECT 1 FROM tasks_run r
                WHERE r.task_id = t.id AND r.number = (data ->> 'attempt')::int AND r.started_at IS NOT NULL)
            WHEN 'task.' || t.status THEN (data ->> 'charged_credits')::numeric
                    IS NOT DISTINCT FROM coalesce((SELECT charged FROM billing_charge c WHERE c.task_id = t.id), 0)
                AND (data -> 'error') IS NOT DISTINCT FROM t.error
                AND (data ->> 'reason') IS NOT DISTINCT FROM nullif(t.cancel_reason, '')
            ELSE true END
            AND actor <> '' AND (actor = 'system') = (type IN ('task.running', 'task.succeeded', 'task.failed',
                'callback.delivered', 'callback.failed') OR (type = 'task.queued' AND seq > 1))) AS true
    FROM tasks_taskevent WHERE task_id = t.id) e
WHERE e.queued <> t.attempt OR e.last > t.seq OR NOT e.true OR (e.ended = 1) <> (t.completed_at IS NOT NULL)
   OR e.running <> (SELECT count(started_at) FROM tasks_run WHERE task_id = t.id)
   OR (e.paused = 1 AND t.completed_at IS NULL) <> (t.paused_at IS NOT NULL) OR e.paused NOT BETWEEN 0 AND 1
   OR e.priority <> t.priority OR e.deadline <> t.deadline
ORDER BY t.id LIMIT 1
"""
REFUNDS = """
SELECT format('task %s: %s refunded by "%s" for "%s" as transfer %s, %s told by "%s" for "%s"',
    coalesce(r.task_id, e.task_id), r.amount, r.actor, r.reason, r.id, e.amount, e.actor, e.reason)
FROM (
    SELECT f.*, l.meter, row_number() OVER (PARTITION BY f.task_id ORDER BY account_seq) AS place
    FROM billing_transfer f LEFT JOIN billing_usageline l ON l.id = f.usage_line_id
    WHERE f.kind = 'refund' AND f.task_id IN (SELECT id FROM tasks_task)
) r FULL JOIN (
    SELECT task_id, actor, data ->> 'line' AS meter, (data ->> 'amount_credits')::numeric AS amount,
        data -> 'private' ->> 'reason' AS reason,
        row_number() OVER (PARTITION BY task_id ORDER BY seq) AS place FROM tasks_taskevent
    WHERE type = 'task.refunded'
) e ON e.task_id = r.task_id AND e.place = r.place
WHERE (r.amount, r.actor, r.reason, r.meter) IS DISTINCT FROM (e.amount, e.actor, e.reason, e.meter)
ORDER BY coalesce(r.task_id, e.task_id) LIMIT 1
"""
# A body is of the moment of the end: what was refunded since is not in it.
BODIES = """
SELECT format('callback %s of task %s to %s: %s, %s after %s tries', k.id, k.task_id, k.url, k.event, k.status,
    k.attempt_count)
FROM tasks_callback k JOIN tasks_task t ON t.id = k.task_id AND k.endpoint_id IS NULL
WHERE (k.account_id, k.event, k.url, k.format) IS DISTINCT FROM
      (t.account_id, 'task.' || t.status, t.callback_url, t.callback_format)
   OR (k.status = 'delivered') <> (k.delivered_at IS NOT NULL)
   OR (k.status <> 'pending' AND 'callback.' || k.status IS DISTINCT FROM (
        SELECT e.type FROM tasks_taskevent e
        WHERE e.task_id = t.id AND e.type IN ('callback.delivered', 'callback.failed') ORDER BY e.seq DESC LIMIT 1))
   OR k.attempt_count < (SELECT count(*) FROM tasks_callbackattempt a WHERE a.callback_id = k.id)
   OR (t.content_deleted_at IS NULL AND k.format = 'standard' AND CASE WHEN k.body IS JSON THEN
        k.body::json ->> 'type' IS DISTINCT FROM k.event
        OR k.body::json #>> '{data,task_id}' IS DISTINCT FROM typeid('task', t.id)
        OR k.body::json #>> '{data,status}' IS DISTINCT FROM t.status
        OR k.body::json #> '{data,output}' #>> '{}' IS DISTINCT FROM t.output #>> '{}'
        OR k.body::json #> '{data,input}' #>> '{}' IS DISTINCT FROM t.input #>> '{}'
        OR (k.body::json #>> '{data,billing,charged_credits}')::numeric
            IS DISTINCT FROM coalesce((SELECT charged FROM billing_charge c WHERE c.task_id = t.id), 0)
        ELSE true END)
ORDER BY k.id LIMIT 1
"""
ENDPOINTS = """
SELECT format('callback %s of task %s to endpoint %s: %s, %s, %s', k.id, k.task_id, k.endpoint_id, k.event, k.url,
    k.status)
FROM tasks_callback k LEFT JOIN tasks_webhookendpoint e ON e.id = k.endpoint_id
LEFT JOIN tasks_task t ON t.id = k.task_id
WHERE (k.endpoint_id IS NOT NULL OR k.task_id IS NULL) AND (
    (e.account_id, e.url, 'standard') IS DISTINCT FROM (k.account_id, k.url, k.format)
    OR starts_with(k.event, 'account.') <> (k.task_id IS NULL)
    OR coalesce(t.account_id, k.account_id) <> k.account_id
    OR k.event NOT IN ('task.refunded', 'account.balance_low', coalesce('task.' || t.status, ''))
    OR (k.status = 'delivered') <> (k.delivered_at IS NOT NULL)
    OR (k.status = 'pending' AND e.deleted_at IS NOT NULL)
    OR (t.content_deleted_at IS NULL AND CASE WHEN k.body IS JSON THEN
        k.body::json ->> 'type' IS DISTINCT FROM k.event
        OR (t.id IS NOT NULL AND k.body::json #>> '{data,task_id}' IS DISTINCT FROM typeid('task', t.id))
        ELSE true END))
ORDER BY k.id LIMIT 1
"""

CHECKS = (
    Check("counters_are_tasks", "An account's counters are the tasks it has.", COUNTERS),
    Check("tasks_hold_their_quotes", "An unfinished task holds its quote, a final one nothing.", HELD),
    Check("holds_have_their_tasks", "What is held is held for a task that is there.", ORPHANS),
    Check("charges_stay_within_quotes", "No task was charged above its quote.", QUOTES),
    Check("quotes_follow_their_prices", "A quote is its bound at its prices.", QUOTED),
    Check("lines_are_the_usage", "A line is what its task used, at its quote's prices.", LINES),
    Check("usage_has_its_lines", "What was used and is priced has its line.", USED),
    Check("cuts_are_told", "What was cut from a bill is warned of, and nothing else.", WARNED),
    Check("only_work_is_charged", "What failed, or did nothing, is charged nothing but partial output.", ENDED_FREE),
    Check("runs_fit_their_task", "A task's runs are numbered, and the last says how it is.", RUNS),
    Check("events_tell_the_truth", "A task's events tell of its runs, its money and its end.", EVENTS),
    Check("refunds_are_told", "Each refund is told by an event: how much, by whom and why.", REFUNDS),
    Check("callbacks_carry_their_task", "A callback carries its task, as it ended, to where it asked.", BODIES),
    Check("endpoints_hear_their_account", "An endpoint is told of its own account, by name and URL.", ENDPOINTS),
    Check("tasks_end_once", "A task has as many ends as its status says, and so has its run.", ENDS),
    Check("ended_tasks_owe_callbacks", "A final task with a callback URL owes exactly one callback.", CALLBACKS),
)


def register() -> None:
    """Add the checks to the audit; once, when the app is ready."""
    audit.CHECKS.extend(CHECKS)
    audit.COUNTED["tasks"] = Task._meta.db_table
