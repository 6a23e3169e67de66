UPDATE billing_charge c SET refunded = t.refunded FROM seed_began t WHERE t.refunded IS NOT NULL AND c.task_id = t.id
