-- Callbacks that were delivered and that ended as failed in a time, piece by piece: from two partial indexes alone.
SELECT date_bin(%(step)s, delivered_at, %(first)s) AS at, 'delivered' AS what, count(*)
FROM tasks_callback WHERE delivered_at >= %(first)s AND delivered_at < %(last)s GROUP BY 1
UNION ALL
SELECT date_bin(%(step)s, failed_at, %(first)s), 'failed', count(*)
FROM tasks_callback WHERE failed_at >= %(first)s AND failed_at < %(last)s GROUP BY 1
