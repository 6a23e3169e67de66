-- A page of tasks, no longer than so many bytes: the JSON is built task by task, and none after there is enough of it.
-- What stands for `ids` selects the page's ids in their order, up to one after the page.
WITH RECURSIVE page AS MATERIALIZED (
    SELECT id, row_number() OVER () AS place FROM ({ids}) AS slice
), shown AS (
    SELECT 0::bigint AS place, NULL::uuid AS id, NULL::text AS json, 0::bigint AS bytes
    UNION ALL
    SELECT page.place, page.id, built.json, shown.bytes + coalesce(octet_length(built.json), 0)
    FROM shown JOIN page ON page.place = shown.place + 1
        CROSS JOIN LATERAL (SELECT task_json(page.id, %s::text[]) AS json OFFSET 0) AS built
    WHERE shown.bytes < %s AND page.place <= %s
)
SELECT id, json, place < (SELECT count(*) FROM page) FROM shown WHERE place > 0 ORDER BY place
