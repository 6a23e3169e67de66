-- When each task was created, whose it is, and the dice of its life, all drawn before anything is decided. Ids are UUIDv7 of
-- their moment, as `identifiers.new_id` makes them. `r` counts from the newest, 0.
CREATE TEMP TABLE seed_draw ON COMMIT DROP AS
WITH moment AS MATERIALIZED (
    SELECT at + random() * seconds * interval '1 second' AS created_at FROM seed_hour, generate_series(1, tasks)
), numbered AS (
    SELECT row_number() OVER (ORDER BY created_at) AS n, created_at,
        extract(epoch FROM created_at) AS epoch FROM moment
)
SELECT n, %(tasks)s - n AS r, created_at, extract(epoch FROM now() - created_at)::float8 AS age,
    (lpad(to_hex(floor(epoch * 1000)::bigint), 12, '0') || '7'
        || lpad(to_hex((floor(epoch * 1000000)::bigint %% 1000) * 4096 / 1000), 3, '0')
        || substr('89ab', 1 + floor(random() * 4)::int, 1) || substr(md5(%(salt)s || n), 1, 15))::uuid AS id,
    1 + floor(%(accounts)s * power(random(), 2.2))::int AS place,
    random() AS which, 1 + floor(random() * %(samples)s)::int AS number, random() AS fate, random() AS cause,
    random() AS wait, random() AS work, random() AS tries, random() AS call, random() AS later
FROM numbered
