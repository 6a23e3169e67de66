-- Everything of a locked task that its content is, in one statement; the counts of the callbacks that end unheard. An
-- artifact is over now, as if its time had come: from there on the sweeper deletes the file as any other. What receivers
-- answered may repeat what they were told.
WITH task AS (
    UPDATE tasks_task SET input = '{}', output = NULL, creation_request = NULL, content_deleted_at = now()
    WHERE id = %(id)s
), run AS (
    UPDATE tasks_run SET partial_text = '' WHERE task_id = %(id)s AND partial_text <> ''
), artifact AS (
    UPDATE tasks_artifact SET expires_at = now() WHERE task_id = %(id)s AND expires_at > now()
), answer AS (
    UPDATE tasks_callbackattempt a SET response = '', response_headers = '' FROM tasks_callback c
    WHERE c.task_id = %(id)s AND a.callback_id = c.id AND (a.response, a.response_headers) <> ('', '')
), told AS (
    UPDATE tasks_callback SET body = '' WHERE task_id = %(id)s AND status <> 'pending'
)
UPDATE tasks_callback SET body = '', status = 'failed', last_error = %(reason)s, next_attempt_at = NULL,
    waits_for_id = NULL, waits_since = NULL, lease_token = NULL, lease_expires_at = NULL
WHERE task_id = %(id)s AND status = 'pending'
RETURNING attempt_count, endpoint_id IS NULL
