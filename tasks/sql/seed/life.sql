-- What became of each task: its status and why, how often it was tried and when. Times are squeezed into the task's age, so
-- that nothing happened in the future. Queued tasks are of drained models only: no worker takes them before an operator
-- resumes the model. A few are past their deadline; a sweeper that runs ends them.
CREATE TEMP TABLE seed_life ON COMMIT DROP AS
WITH fated AS (
    SELECT d.*, m.model, m.drained, m.partial AS may_be_partial,
        CASE
            WHEN r %% 2500 = 3 AND r < %(tasks)s * 0.1 + 20 THEN 'running'
            WHEN r %% 2500 = 11 AND r < %(tasks)s * 0.1 + 20 THEN 'queued'
            WHEN r < %(tasks)s * 0.002 + 8 AND fate < 0.5 THEN 'running'
            WHEN r < %(tasks)s * 0.02 + 30 AND m.drained AND fate < 0.8 THEN 'queued'
            WHEN fate < 0.9 THEN 'succeeded'
            WHEN fate < 0.97 THEN 'failed'
            ELSE 'canceled' END AS status,
        r %% 2500 IN (3, 11) AND r < %(tasks)s * 0.1 + 20 AS stuck
    FROM seed_draw d JOIN seed_model m ON d.which >= m.since AND d.which < m.until
), caused AS (
    SELECT *, CASE WHEN status <> 'failed' THEN NULL
            WHEN cause < 0.30 OR age < 3000 AND cause > 0.62 THEN 'capability_error'
            WHEN cause < 0.52 THEN 'upstream_error'
            WHEN cause < 0.62 THEN 'invalid_input'
            WHEN cause < 0.76 THEN 'timeout'
            WHEN cause < 0.85 THEN 'expired'
            WHEN cause < 0.92 THEN 'worker_lost'
            WHEN cause < 0.97 THEN 'deadline_exceeded'
            WHEN cause < 0.99 THEN 'internal_error'
            ELSE 'dependency_failed' END AS code
    FROM fated
), tried AS (
    SELECT *, CASE WHEN code = 'worker_lost' OR (code = 'upstream_error' AND tries < 0.4) THEN 3
            WHEN code IN ('expired', 'dependency_failed') OR (status = 'canceled' AND tries < 0.4) THEN 1
            WHEN tries > 0.995 AND status <> 'queued' THEN 3 WHEN tries > 0.965 THEN 2 ELSE 1 END AS attempt,
        NOT (coalesce(code IN ('expired', 'dependency_failed'), false) OR (status = 'canceled' AND tries < 0.4)) AS begun,
        CASE WHEN tries * 1000 - floor(tries * 1000) < 0.6 THEN 'claim_expired' ELSE 'upstream_error' END AS lost_by,
        CASE WHEN code = 'expired' THEN 300 + 2000 * wait WHEN r < 50 THEN 0.05 + wait ELSE 0.05 - ln(1 - wait) * 6 END AS waited,
        CASE WHEN code = 'timeout' THEN 120 ELSE 0.3 + least(-ln(1 - work) * 14, 110) END AS worked
    FROM caused
), timed AS (
    SELECT *, begun AND (status <> 'queued' OR attempt > 1) AS started,
        least(1, 0.9 * age / (waited + attempt * (worked + 20))) AS squeeze
    FROM tried
)
SELECT *, squeeze * waited * interval '1 second' AS wait_for, squeeze * worked * interval '1 second' AS work_for,
    squeeze * (worked + 20) * interval '1 second' AS step,
    status NOT IN ('queued', 'running') AS final,
    CASE WHEN status NOT IN ('queued', 'running') THEN created_at + squeeze * (waited
        + CASE WHEN started THEN (attempt - 1) * (worked + 20) + worked ELSE 0 END) * interval '1 second' END AS completed_at,
    may_be_partial AND started AND (coalesce(code IN ('timeout', 'deadline_exceeded'), false) OR status = 'canceled') AND attempt = 1
        AS partial
FROM timed
