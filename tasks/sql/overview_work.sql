-- What was submitted and what ended in a time, piece by piece, by model and in all, with the run times: one statement, so
-- that the pieces and what is open now are of one moment. Tasks are counted from two indexes alone, submissions by ranges
-- of the key and ends by task_ended. A run time is one that was: the longest of its step of a tenth, which makes half and
-- most from one look at the rows, in a third of the time of `percentile_disc`. A week of 1,000,000 tasks is a second.
WITH piece AS MATERIALIZED (
    SELECT at, first_id, soon_id, next_id
    FROM unnest(%(starts)s::timestamptz[], %(first_ids)s::uuid[], %(soon_ids)s::uuid[], %(next_ids)s::uuid[])
        AS p(at, first_id, soon_id, next_id)
), begun AS MATERIALIZED (
    SELECT at, first_id, next_id, (
        SELECT count(*) FROM tasks_task t WHERE t.id >= p.first_id AND t.id < p.soon_id AND t.created_at < p.at) AS before
    FROM piece p
), submitted AS (
    SELECT at, (SELECT count(*) FROM tasks_task t WHERE t.id >= b.first_id AND t.id < b.next_id) - before
        + lead(before, 1, 0) OVER (ORDER BY at) AS tasks
    FROM begun b
), tally AS MATERIALIZED (
    SELECT date_bin(%(step)s, completed_at, %(first)s) AS at, model, status,
        width_bucket(completed_at - started_at, %(lengths)s::interval[]) AS length,
        count(*) AS tasks, max(completed_at - started_at) AS longest
    FROM tasks_task WHERE completed_at >= %(first)s AND completed_at < %(last)s GROUP BY 1, 2, 3, 4
), ended AS (
    SELECT at, model, sum(tasks) AS tasks, sum(tasks) FILTER (WHERE status = 'succeeded') AS succeeded,
        sum(tasks) FILTER (WHERE status = 'failed') AS failed, sum(tasks) FILTER (WHERE status = 'canceled') AS canceled
    FROM tally GROUP BY GROUPING SETS ((at), (model), ())
), length AS (
    SELECT at, model, length, sum(tasks) AS tasks, max(longest) AS longest
    FROM tally WHERE longest IS NOT NULL GROUP BY GROUPING SETS ((at, length), (model, length), (length))
), ranked AS (
    SELECT at, model, longest, sum(tasks) OVER (PARTITION BY at, model ORDER BY length) AS so_far,
        sum(tasks) OVER (PARTITION BY at, model) AS of_all
    FROM length
), time AS (
    SELECT at, model, min(longest) FILTER (WHERE so_far >= 0.5 * of_all) AS half,
        min(longest) FILTER (WHERE so_far >= 0.95 * of_all) AS most
    FROM ranked GROUP BY 1, 2
), shown AS (
    SELECT * FROM ended WHERE model IS NULL
    UNION ALL
    (SELECT * FROM ended WHERE model IS NOT NULL ORDER BY tasks DESC, model LIMIT %(models)s)
)
SELECT coalesce(shown.at, submitted.at) AS at, shown.model, coalesce(submitted.tasks, 0), coalesce(shown.succeeded, 0)::bigint,
    coalesce(shown.failed, 0)::bigint, coalesce(shown.canceled, 0)::bigint, extract(epoch FROM time.half)::float8,
    extract(epoch FROM time.most)::float8, account.running, account.open
FROM shown FULL JOIN submitted ON submitted.at = shown.at
CROSS JOIN (SELECT coalesce(sum(running), 0)::bigint AS running, coalesce(sum(pending), 0)::bigint AS open FROM billing_account) account
LEFT JOIN time ON time.at IS NOT DISTINCT FROM shown.at AND time.model IS NOT DISTINCT FROM shown.model
ORDER BY shown.tasks DESC, shown.model
