-- Every movement of credits in its time. Each account is granted, week by week, what that week needs at most, rounded up, so
-- that no balance was ever negative; who is low got little more than that.
CREATE TEMP TABLE seed_move ON COMMIT DROP AS
WITH move AS (
    SELECT place, created_at AS at, 3 AS ord, id, api_key_id, 'hold' AS kind, quoted AS amount, '' AS reason, 'system' AS actor,
        'hold:' || id AS key FROM seed_began WHERE quoted > 0
    UNION ALL
    SELECT place, completed_at, 1, id, NULL, 'capture', charged, '', 'system', 'capture:' || id FROM seed_began WHERE charged > 0
    UNION ALL
    SELECT place, completed_at, 2, id, NULL, 'release', quoted - charged, '', 'system', 'release:' || id
    FROM seed_began WHERE final AND quoted > charged
    UNION ALL
    SELECT place, refunded_at, 2, id, NULL, 'refund', refunded, 'The answer was of no use to the customer.', 'operator:ann',
        'refund:' || id FROM seed_began WHERE refunded IS NOT NULL
), used AS (
    SELECT place, at, sum(CASE kind WHEN 'hold' THEN amount WHEN 'capture' THEN 0 ELSE -amount END)
        OVER (PARTITION BY place ORDER BY at, ord, id) AS amount FROM move
), week AS (
    SELECT place, date_trunc('week', at) AS begin, max(amount) AS amount FROM used GROUP BY 1, 2
), needed AS (
    SELECT place, begin, 50 * ceil(max(amount) OVER (PARTITION BY place ORDER BY begin) / 50) AS amount FROM week
), granted AS (
    SELECT place, begin, amount - lag(amount, 1, 0::numeric) OVER (PARTITION BY place ORDER BY begin) AS amount FROM needed
)
SELECT * FROM move
UNION ALL
SELECT g.place, greatest(g.begin, a.born + interval '1 minute'), 0, NULL, NULL, 'grant', g.amount, 'top-up', 'operator:ben',
    'seed:' || a.id || ':' || g.begin::date
FROM granted g JOIN seed_account a USING (place) WHERE g.amount > 0
UNION ALL
SELECT place, born, 0, NULL, NULL, 'grant', opening, 'opening balance', 'operator:ann', 'seed:' || id FROM seed_account
UNION ALL
SELECT place, born + interval '1 hour', 0, NULL, NULL, 'adjustment', 25, 'goodwill', 'operator:ann', 'seed:goodwill:' || id
FROM seed_account WHERE place %% 9 = 4
