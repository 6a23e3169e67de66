-- What a submission needs to know, in one look: the deployment, the prices of now, whether it is full, the
-- time, and whether the account is one for tests.
SELECT d.id, d.name, d.capability, d.resolved_model, d.queue, d.timeout, d.max_retries, d.ttl, d.max_lifetime,
    d.bills_partial_output, now(), clock_timestamp(),
    d.max_pending, d.max_pending IS NOT NULL AND (
        SELECT count(*) FROM (SELECT 1 FROM tasks_task t WHERE t.deployment_id = d.id AND t.status IN ('queued', 'running')
                              LIMIT d.max_pending) pending) >= d.max_pending,
    coalesce((SELECT jsonb_agg(jsonb_build_object('price_id', p.id, 'meter', p.meter, 'unit', p.unit,
                                                  'unit_size', p.unit_size, 'credits', p.credits::text))
              FROM (SELECT DISTINCT ON (meter) * FROM billing_price each
                    WHERE rate_card_id = d.rate_card_id AND effective_from <= now()
                        AND NOT EXISTS (SELECT FROM billing_pricewithdrawal w WHERE w.price_id = each.id)
                    ORDER BY meter, effective_from DESC, created_at DESC) p), '[]'::jsonb),
    EXISTS (SELECT FROM billing_account a WHERE a.id = %(account)s AND a.twin_of_id IS NOT NULL)
FROM tasks_deployment d
WHERE d.is_active AND CASE WHEN %(model)s::text IS NULL THEN d.is_default AND d.capability = %(capability)s
                           ELSE d.name = %(model)s END
