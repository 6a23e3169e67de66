-- As they were when the callbacks were written: nothing refunded yet.
INSERT INTO billing_charge (task_id, account_id, api_key_id, held, charged, refunded, created_at)
SELECT id, account_id, api_key_id, CASE WHEN final THEN 0 ELSE quoted END, charged, 0, created_at
FROM seed_began WHERE quoted > 0 ORDER BY n
