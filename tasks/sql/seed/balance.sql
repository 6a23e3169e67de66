-- The accounts as their transfers and tasks leave them.
WITH last AS (
    SELECT DISTINCT ON (account_id) * FROM billing_transfer WHERE account_id = ANY (%(account_ids)s) ORDER BY account_id, account_seq DESC
), month AS (
    SELECT m.account_id, m.month, sum(CASE WHEN m.kind = 'hold' THEN m.amount WHEN m.begun = m.month THEN -m.amount ELSE 0 END) AS spent
    FROM (
        SELECT t.account_id, t.kind, t.amount, date_trunc('month', t.created_at AT TIME ZONE 'utc')::date AS month,
            date_trunc('month', c.created_at AT TIME ZONE 'utc')::date AS begun
        FROM billing_transfer t JOIN billing_charge c ON c.task_id = t.task_id
        WHERE t.account_id = ANY (%(account_ids)s) AND t.kind IN ('hold', 'release')) m
    GROUP BY 1, 2
), busy AS (
    SELECT account_id, count(*) AS pending, count(*) FILTER (WHERE status = 'running') AS running
    FROM tasks_task WHERE status IN ('queued', 'running') AND account_id = ANY (%(account_ids)s) GROUP BY 1
), now_is AS (
    SELECT l.*, date_trunc('month', l.created_at AT TIME ZONE 'utc')::date AS month, coalesce(b.pending, 0) AS pending,
        coalesce(b.running, 0) AS running, s.low
    FROM last l JOIN seed_account s ON s.id = l.account_id LEFT JOIN busy b ON b.account_id = l.account_id
)
UPDATE billing_account a SET granted = n.granted_after, available = n.available_after, held = n.held_after,
    charged = n.charged_after, account_seq = n.account_seq, month = n.month, month_spent = coalesce(m.spent, 0),
    pending = n.pending, running = n.running, pending_limit = greatest(a.pending_limit, n.pending + 100),
    running_limit = greatest(a.running_limit, n.running + 5),
    low_balance_threshold = CASE WHEN n.low THEN n.available_after + 10 WHEN a.low_balance_threshold < n.available_after THEN a.low_balance_threshold END,
    low_since = CASE WHEN n.low THEN n.created_at END,
    monthly_cap = CASE WHEN a.monthly_cap > coalesce(m.spent, 0) THEN a.monthly_cap END
FROM now_is n LEFT JOIN month m ON m.account_id = n.account_id AND m.month = n.month WHERE a.id = n.account_id
