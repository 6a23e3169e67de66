-- What a person has to look at now: how many rows of each kind, up to `most`, and since when the oldest is so. Each kind
-- has a partial index of what is open, whatever the tables hold. The lists behind these numbers say the same in Django's
-- words; a test holds both together.
SELECT 'stuck' AS need, count(*), min(since) FROM (
    SELECT id, min(since) AS since FROM (
        (SELECT id, deadline AS since FROM tasks_task
         WHERE status IN ('queued', 'running') AND deadline <= now() - %(grace)s::interval ORDER BY deadline LIMIT %(most)s)
        UNION ALL
        (SELECT id, expires_at FROM tasks_task
         WHERE status = 'queued' AND started_at IS NULL AND expires_at <= now() - %(grace)s::interval
         ORDER BY expires_at LIMIT %(most)s)) late
    GROUP BY id LIMIT %(most)s) t
UNION ALL
SELECT 'lost', count(*), min(since) FROM (
    SELECT lease_expires_at AS since FROM tasks_run
    WHERE status = 'running' AND lease_expires_at < now() ORDER BY lease_expires_at LIMIT %(most)s) r
UNION ALL
SELECT 'paused', count(*), min(paused_at) FROM tasks_receiver WHERE paused_at IS NOT NULL
UNION ALL
SELECT 'failing', count(*), min(last_failure_at) FROM tasks_receiver WHERE paused_at IS NULL AND failures > 0
UNION ALL
SELECT 'late', count(*), min(since) FROM (
    SELECT next_attempt_at AS since FROM tasks_callback
    WHERE status = 'pending' AND waits_for_id IS NULL AND next_attempt_at < now() - %(late)s::interval
    ORDER BY next_attempt_at LIMIT %(most)s) c
UNION ALL
SELECT 'owed', count(*), min(since) FROM (
    (SELECT created_at AS since FROM tasks_callback
     WHERE status = 'pending' AND waits_for_id IS NULL AND created_at < now() - %(owed)s::interval LIMIT %(most)s)
    UNION ALL
    (SELECT created_at FROM tasks_callback
     WHERE status = 'pending' AND waits_for_id IS NOT NULL AND created_at < now() - %(owed)s::interval LIMIT %(most)s)
    LIMIT %(most)s) c
UNION ALL
SELECT 'failed', count(*), min(since) FROM (
    SELECT failed_at AS since FROM tasks_callback
    WHERE failed_at >= now() - %(failed)s::interval ORDER BY failed_at LIMIT %(most)s) c
UNION ALL
SELECT 'delivered', 0, max(delivered_at) FROM tasks_callback
