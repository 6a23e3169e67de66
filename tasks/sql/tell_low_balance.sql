-- What an account's endpoints are told when its balance falls below the threshold, in the transaction that moves it.
-- Ten tries; the sweeper wakes the deliverer. Who was told within the hour is told again only if credits were given since:
-- a large hold, released and taken again, is no news.

-- A UUID version 7 of now, as the rows that Python makes have.
CREATE OR REPLACE FUNCTION uuid7() RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
        52, 1), 53, 1), 'hex')::uuid
$$;

-- The same object as GET /v1/account.
CREATE OR REPLACE FUNCTION account_json(a billing_account) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT row_to_json(o)::text FROM (SELECT
        'account' AS object,
        a.name,
        a.granted::text AS granted_credits,
        a.available::text AS available_credits,
        a.held::text AS held_credits,
        a.charged::text AS charged_credits,
        a.credit_limit::text AS credit_limit_credits,
        a.monthly_cap::text AS monthly_cap_credits,
        (CASE WHEN a.month >= date_trunc('month', now() AT TIME ZONE 'utc') THEN a.month_spent ELSE 0.0000 END)::text
            AS month_spent_credits,
        a.low_balance_threshold::text AS low_balance_threshold_credits,
        a.pending AS pending_tasks,
        a.pending_limit AS pending_tasks_limit,
        a.running AS running_tasks,
        a.running_limit AS running_tasks_limit,
        a.requests_per_minute,
        rfc3339(a.created_at) AS created_at) o
$$;

CREATE OR REPLACE FUNCTION tell_low_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH endpoint AS MATERIALIZED (
        SELECT e.id, e.url FROM tasks_webhookendpoint e
        WHERE e.account_id = NEW.id AND e.deleted_at IS NULL AND 'account.balance_low' = ANY (e.events)
            AND NOT EXISTS (
                SELECT 1 FROM tasks_callback c
                WHERE c.endpoint_id = e.id AND c.event = 'account.balance_low'
                    AND c.created_at > now() - interval '1 hour'
                    AND (nullif(c.body, '')::json #>> '{data,granted_credits}')::numeric >= NEW.granted)
        FOR SHARE
    )
    INSERT INTO tasks_callback (id, account_id, endpoint_id, event, url, format, body, status, tries_left)
    SELECT uuid7(), NEW.id, id, 'account.balance_low', url, 'standard', '{"type":"account.balance_low","timestamp":"'
        || rfc3339(NEW.low_since) || '","data":' || account_json(NEW) || '}', 'pending', 10
    FROM endpoint;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER a_low_balance_is_told AFTER UPDATE ON billing_account
    FOR EACH ROW WHEN (OLD.low_since IS NULL AND NEW.low_since IS NOT NULL) EXECUTE FUNCTION tell_low_balance();
