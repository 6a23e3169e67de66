-- What each key spent in its last month. Charges and holds are counted by themselves first: together, they are looked up one by one.
WITH charge AS MATERIALIZED (
    SELECT task_id, api_key_id, date_trunc('month', created_at AT TIME ZONE 'utc')::date AS begun
    FROM billing_charge WHERE account_id = ANY (%(account_ids)s) AND api_key_id IS NOT NULL
), moved AS MATERIALIZED (
    SELECT c.api_key_id, t.kind, t.amount, t.created_at, date_trunc('month', t.created_at AT TIME ZONE 'utc')::date AS month, c.begun
    FROM billing_transfer t JOIN charge c ON c.task_id = t.task_id
    WHERE t.account_id = ANY (%(account_ids)s) AND t.kind IN ('hold', 'release')
), last AS (
    SELECT api_key_id, max(created_at) AS at, max(month) AS month FROM moved GROUP BY 1
), spent AS (
    SELECT l.api_key_id, l.month, l.at, sum(CASE WHEN kind = 'hold' THEN amount WHEN begun = m.month THEN -amount ELSE 0 END) AS spent
    FROM last l JOIN moved m ON m.api_key_id = l.api_key_id AND m.month = l.month GROUP BY 1, 2, 3
)
UPDATE billing_apikey k SET month = s.month, month_spent = s.spent, last_used_at = date_trunc('minute', s.at)
FROM spent s WHERE k.id = s.api_key_id
