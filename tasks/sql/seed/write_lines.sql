INSERT INTO billing_usageline (task_id, account_id, position, meter, quantity, unit, unit_size, unit_price, price_id,
    listed_amount, billed_amount, usd_reference, estimated, created_at)
SELECT t.id, t.account_id, l.position, l.meter, l.quantity, l.unit, l.unit_size, l.unit_price, l.price_id, l.listed,
    CASE WHEN t.waived THEN 0 ELSE l.billed END, CASE WHEN t.waived THEN 0 ELSE l.usd END, false, t.completed_at
FROM seed_began t JOIN seed_line l ON l.model = t.model AND l.number = t.work_number AND l.partial = t.partial
WHERE t.status = 'succeeded' OR t.partial ORDER BY t.completed_at, t.id, l.position
