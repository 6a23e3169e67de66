-- Streamed text from an offset on, and the usage so far, in one UPDATE: the row is never behind the customer, and a piece
-- that is said twice stands there once.
UPDATE tasks_run SET partial_text = left(partial_text, %(offset)s) || %(text)s, usage = %(usage)s
WHERE lease_token = %(token)s AND status = 'running' RETURNING length(partial_text)
