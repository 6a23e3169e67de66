-- What each task's `seq` is now, and what it was when it ended.
CREATE TEMP TABLE seed_seq ON COMMIT DROP AS
SELECT id, max(seq) AS seq, max(seq) FILTER (WHERE place = 21) AS at_end FROM seed_event GROUP BY id
