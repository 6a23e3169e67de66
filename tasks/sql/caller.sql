-- Who sends this key: one row, or none for a key that is unknown, revoked or expired.
SELECT a.id, k.id, k.prefix, k.scopes, a.is_active, a.requests_per_minute
FROM billing_apikey k JOIN billing_account a ON a.id = k.account_id
WHERE (k.digest = %(digest)s OR (k.previous_digest = %(digest)s AND k.previous_until > now()))
    AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
