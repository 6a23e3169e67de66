-- A task, what it was rerun from up to the first, and what was rerun from it: by the primary key and by the index of
-- rerun_of, a few steps each. Recursion is what the ORM lacks; rerun_root has an index of unfinished tasks only.
WITH RECURSIVE up (id, depth) AS (
    SELECT %(id)s::uuid, 0
    UNION ALL
    SELECT t.rerun_of_id, u.depth - 1 FROM up u JOIN tasks_task t ON t.id = u.id
    WHERE t.rerun_of_id IS NOT NULL AND u.depth > -%(most)s
), down (id, depth) AS (
    SELECT %(id)s::uuid, 0
    UNION ALL
    SELECT t.id, d.depth + 1 FROM down d JOIN tasks_task t ON t.rerun_of_id = d.id WHERE d.depth < %(most)s
), chain AS (
    SELECT id, depth FROM up
    UNION ALL
    (SELECT id, depth FROM down WHERE depth > 0 LIMIT %(most)s)
)
SELECT t.id, c.depth, t.rerun_of_id, t.status, t.waived, t.created_at, b.charged, b.refunded
FROM chain c JOIN tasks_task t ON t.id = c.id LEFT JOIN billing_charge b ON b.task_id = t.id
