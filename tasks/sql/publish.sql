-- Streamed text and the usage so far, in one UPDATE, so that the row is never behind the customer.
UPDATE tasks_run SET partial_text = partial_text || %(text)s, usage = %(usage)s
WHERE lease_token = %(token)s AND status = 'running' RETURNING length(partial_text)
