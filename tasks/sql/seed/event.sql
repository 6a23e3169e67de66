-- Everything that a timeline tells, numbered in the order of its time. Tries that are no ends take a number without an event.
CREATE TEMP TABLE seed_event ON COMMIT DROP AS
WITH told AS (
    SELECT id, created_at AS at, 0 AS place, 'task.queued' AS type,
        jsonb_build_object('held_credits', quoted::numeric(20, 4)::text) || CASE WHEN waived THEN
            '{"waived": true, "private": {"reason": "The first answer was our fault."}}'::jsonb ELSE '{}' END AS data,
        CASE WHEN waived THEN 'operator:ann' ELSE 'api_key:' || key_prefix END AS actor, 0 AS silent
    FROM seed_began
    UNION ALL
    SELECT id, created_at + wait_for * 0.3, 1, 'task.priority_changed',
        '{"priority": 8, "before": 5, "private": {"reason": "The customer is waiting for it."}}', 'operator:ben', 0
    FROM seed_began WHERE priority = 8
    UNION ALL
    SELECT id, created_at + wait_for * 0.4, 2, 'task.deadline_extended', jsonb_build_object(
        'deadline', rfc3339(created_at + interval '31 days'), 'before', rfc3339(created_at + interval '30 days 2100 seconds'),
        'private', '{"reason": "A large batch before it."}'::jsonb), 'operator:ann', 0
    FROM seed_began WHERE extended
    UNION ALL
    SELECT id, created_at + wait_for * 0.5, 3, 'task.paused', '{"private": {"reason": "Asked for by the customer."}}', 'operator:ann', 0
    FROM seed_began WHERE priority = 8
    UNION ALL
    SELECT id, created_at + wait_for * 0.6, 4, 'task.resumed', '{}', 'operator:ann', 0 FROM seed_began WHERE priority = 8
    UNION ALL
    SELECT id, CASE WHEN try = attempt THEN last_start ELSE created_at + wait_for + (try - 1) * step END, 5 + 2 * try,
        'task.running', jsonb_build_object('attempt', try), 'system', 0
    FROM seed_began, generate_series(1, attempt) try WHERE started AND NOT (status = 'queued' AND try = attempt)
    UNION ALL
    SELECT id, created_at + wait_for + (try - 1) * step + work_for, 6 + 2 * try, 'task.queued',
        jsonb_build_object('attempt', try + 1, 'reason', lost_by), 'system', 0
    FROM seed_began, generate_series(1, attempt - 1) try
    UNION ALL
    SELECT id, created_at + wait_for, 20, 'task.paused', '{"private": {"reason": "Asked for by the customer."}}', 'operator:ben', 0
    FROM seed_began WHERE paused
    UNION ALL
    SELECT id, completed_at, 21, 'task.' || status, jsonb_build_object('charged_credits', charged::numeric(20, 4)::text)
        || CASE WHEN status = 'failed' THEN jsonb_build_object('error', r.error) ELSE '{}' END
        || CASE WHEN status = 'canceled' AND n %% 3 < 2 THEN jsonb_build_object('reason',
            (ARRAY['No longer needed.', 'Submitted twice by mistake.'])[1 + n %% 3]) ELSE '{}' END,
        CASE WHEN status = 'canceled' THEN 'api_key:' || key_prefix ELSE 'system' END, 0
    FROM seed_began t LEFT JOIN seed_reason r ON r.code = t.code AND r.retryable = (t.attempt = 3) WHERE final
    UNION ALL
    SELECT id, least(now(), completed_at + (%(schedule)s::interval[])[attempts_made]), 22,
        CASE callback WHEN 'delivered' THEN 'callback.delivered' WHEN 'failed' THEN 'callback.failed' WHEN 'gone' THEN 'callback.failed' END,
        CASE callback WHEN 'delivered' THEN jsonb_build_object('attempt_count', attempts_made, 'status_code', 200)
            WHEN 'gone' THEN jsonb_build_object('attempt_count', 1, 'status_code', 410, 'error', 'The receiver answered 410.')
            ELSE jsonb_build_object('attempt_count', attempts_made, 'status_code', 503, 'error', 'The receiver answered 503.') END,
        'system', attempts_made - 1
    FROM seed_began WHERE attempts_made > 0
    UNION ALL
    SELECT id, refunded_at, 23, 'task.refunded', jsonb_build_object('amount_credits', refunded::numeric(20, 4)::text)
        || CASE WHEN refunded_line = 0 THEN '{"line": "task"}'::jsonb ELSE '{}' END
        || '{"private": {"reason": "The answer was of no use to the customer."}}', 'operator:ann', 0
    FROM seed_began WHERE refunded IS NOT NULL
    UNION ALL
    SELECT id, completed_at + interval '1 hour', 24, 'task.content_deleted', '{}', 'api_key:' || key_prefix, 0
    FROM seed_began WHERE emptied
)
SELECT id, at, type, data, actor,
    (row_number() OVER w + sum(silent) OVER w) AS seq, place
FROM told WINDOW w AS (PARTITION BY id ORDER BY place, at)
