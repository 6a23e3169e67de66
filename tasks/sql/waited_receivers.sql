-- The receivers that callbacks wait for, by one step in the index each, however many wait.
CREATE OR REPLACE FUNCTION waited_receivers() RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    WITH RECURSIVE waited AS (
        (SELECT waits_for_id AS id FROM tasks_callback WHERE waits_for_id IS NOT NULL ORDER BY waits_for_id LIMIT 1)
        UNION ALL
        SELECT (SELECT c.waits_for_id FROM tasks_callback c WHERE c.waits_for_id > w.id ORDER BY c.waits_for_id LIMIT 1)
        FROM waited w WHERE w.id IS NOT NULL
    )
    SELECT id FROM waited WHERE id IS NOT NULL
$$;
