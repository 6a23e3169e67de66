-- What an account's tasks used in some days, summed by what is asked for. Lines outlive purged tasks, which have no model
-- and no key any more. Quantities of several meters are not one number, so without the meter there is none.
SELECT CASE WHEN 'day' = ANY (%(by)s::text[]) THEN (l.created_at AT TIME ZONE 'utc')::date::text END AS day,
    CASE WHEN 'model' = ANY (%(by)s::text[]) THEN t.model END AS model,
    CASE WHEN 'meter' = ANY (%(by)s::text[]) THEN l.meter END AS meter,
    CASE WHEN 'key' = ANY (%(by)s::text[]) THEN k.prefix END AS key,
    CASE WHEN 'meter' = ANY (%(by)s::text[]) THEN min(l.unit) END AS unit,
    CASE WHEN 'meter' = ANY (%(by)s::text[]) THEN trim_scale(sum(l.quantity))::text END AS quantity,
    sum(l.listed_amount)::text AS listed_amount_credits, sum(l.billed_amount)::text AS billed_amount_credits,
    count(DISTINCT l.task_id) AS tasks
FROM billing_usageline l
LEFT JOIN tasks_task t ON t.id = l.task_id
LEFT JOIN billing_apikey k ON k.id = t.api_key_id
WHERE l.account_id = %(account)s
    AND l.created_at >= %(first)s::date::timestamp AT TIME ZONE 'utc'
    AND l.created_at < (%(last)s::date + 1)::timestamp AT TIME ZONE 'utc'
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
LIMIT %(most)s
