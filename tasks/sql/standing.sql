-- How deployments stand: waiting and running tasks, and of those that ended within a day the failed ones and the median
-- time of a run. Nothing is read but partial indexes, each up to a bound.
WITH ended AS MATERIALIZED (
    SELECT model, status, completed_at - started_at AS took FROM tasks_task
    WHERE completed_at > now() - interval '1 day' ORDER BY completed_at DESC LIMIT %(look)s
), lately AS (
    SELECT model, count(*) FILTER (WHERE status = 'failed') AS failed, count(*) AS ended,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM took)) FILTER (WHERE took IS NOT NULL) AS median
    FROM ended GROUP BY model
), running AS (
    SELECT deployment_id, count(*) AS running FROM tasks_task WHERE status = 'running' GROUP BY deployment_id
)
SELECT d.id,
    (SELECT count(*) FROM (SELECT FROM tasks_task t WHERE t.deployment_id = d.id AND t.status = 'queued'
                           LIMIT %(most)s) waiting),
    coalesce(r.running, 0), coalesce(l.failed, 0), coalesce(l.ended, 0), l.median
FROM tasks_deployment d LEFT JOIN running r ON r.deployment_id = d.id LEFT JOIN lately l ON l.model = d.name
WHERE d.id = ANY (%(ids)s)
