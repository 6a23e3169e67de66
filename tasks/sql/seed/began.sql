-- When the present run of each began: of running ones lately, whatever they waited for.
CREATE TEMP TABLE seed_began ON COMMIT DROP AS
SELECT *, CASE WHEN status = 'running' THEN greatest(created_at + wait_for + (attempt - 1) * step, now() - work * interval '100 seconds')
    ELSE created_at + wait_for + (attempt - 1) * step END AS last_start
FROM seed_task
