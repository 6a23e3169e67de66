-- The deployments that are offered, or the one of this name, each with the prices of now; never what it is set up with.
SELECT d.name, d.capability, d.resolved_model, d.is_default, d.timeout, d.max_retries, d.ttl, d.max_lifetime,
    d.bills_partial_output,
    coalesce((SELECT jsonb_object_agg(p.meter, jsonb_build_object('unit', p.unit, 'unit_size', p.unit_size,
                                                                  'credits', trim_scale(p.credits)::text))
              FROM (SELECT DISTINCT ON (meter) * FROM billing_price each
                    WHERE rate_card_id = d.rate_card_id AND effective_from <= now()
                        AND NOT EXISTS (SELECT FROM billing_pricewithdrawal w WHERE w.price_id = each.id)
                    ORDER BY meter, effective_from DESC, created_at DESC) p), '{}'::jsonb)
FROM tasks_deployment d
WHERE d.is_active AND (%(name)s::text IS NULL OR d.name = %(name)s)
    AND (%(capability)s::text IS NULL OR d.capability = %(capability)s)
ORDER BY d.capability, NOT d.is_default, d.name
