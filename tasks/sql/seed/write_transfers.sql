INSERT INTO billing_transfer (account_id, task_id, api_key_id, usage_line_id, kind, amount, reason, actor, key, account_seq,
    granted_after, available_after, held_after, charged_after, created_at)
SELECT a.id, m.id, m.api_key_id, l.id, m.kind, m.amount, m.reason, m.actor, m.key, row_number() OVER w,
    sum(CASE WHEN kind IN ('grant', 'adjustment') THEN amount ELSE 0 END) OVER w,
    sum(CASE kind WHEN 'hold' THEN -amount WHEN 'capture' THEN 0 ELSE amount END) OVER w,
    sum(CASE kind WHEN 'hold' THEN amount WHEN 'capture' THEN -amount WHEN 'release' THEN -amount ELSE 0 END) OVER w,
    sum(CASE kind WHEN 'capture' THEN amount WHEN 'refund' THEN -amount ELSE 0 END) OVER w, m.at
FROM seed_move m JOIN seed_account a ON a.place = m.place
LEFT JOIN seed_began t ON m.kind = 'refund' AND t.id = m.id
LEFT JOIN billing_usageline l ON l.task_id = t.id AND l.position = t.refunded_line
WINDOW w AS (PARTITION BY m.place ORDER BY m.at, m.ord, m.id ROWS UNBOUNDED PRECEDING) ORDER BY m.at
