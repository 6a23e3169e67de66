-- What an account was charged in a period, less what it was given back, by UTC day, model and key. Transfers are the
-- books: the sums are what the balance `charged` moved by in the period, to the last digit. A purged task has no model.
SELECT least(greatest((t.created_at AT TIME ZONE 'utc')::date, %(since)s::date), %(until)s::date) AS day,
    k.model, k.api_key_id,
    sum(CASE t.kind WHEN 'capture' THEN t.amount ELSE -t.amount END) AS net,
    count(*) FILTER (WHERE t.kind = 'capture') AS tasks
FROM billing_transfer t
LEFT JOIN tasks_task k ON k.id = t.task_id
WHERE t.account_id = %(account)s AND t.account_seq > %(before)s AND t.account_seq <= %(last)s
    AND t.kind IN ('capture', 'refund')
GROUP BY 1, 2, 3
ORDER BY 1, 2
