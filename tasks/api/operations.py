"""What the OpenAPI document says of each operation: the words, the answers and the refusals, by method and path."""

from dataclasses import dataclass
from typing import Any

from tasks.api import schema, schema_endpoints, schema_money, schema_offers, serializers
from tasks.api.endpoint import STREAM

TAGS = {
    "Tasks": "Submit a task, wait for it, list, cancel and rerun. One object carries the whole truth of a task.",
    "Timeline": "What happened to a task, event by event: as pages, or as a stream.",
    "Callbacks": "The signed message about a task's end that your server receives.",
    "Artifacts": "The files that a task made.",
    "Offers": "What can be asked for, with its input's schema and its prices, and what a request would cost.",
    "Account": "Balances, limits, every movement of credits, and usage. Takes the scope `billing:read`.",
}

Shown = dict[str, Any]
BINARY: Shown = {"type": "string", "format": "binary"}


@dataclass(frozen=True)
class Answer:
    """A success: what the body is, and the headers that come with it."""

    description: str
    body: Any = None
    headers: tuple[str, ...] = ()
    media_types: tuple[str, ...] = ("application/json",)
    example: str | None = None


@dataclass(frozen=True)
class Operation:
    """One operation. `codes` are the refusals of its own, beside those that every operation has."""

    id: str
    tag: str
    summary: str
    description: str
    answers: dict[int, Answer]
    codes: tuple[str, ...] = ()
    body: Any = None
    example: str | None = None
    parameters: tuple[str, ...] = ()
    query: tuple[Shown, ...] = ()
    public: bool = False


def _query(name: str, description: str, schema: Shown) -> Shown:
    return {"name": name, "in": "query", "description": description, "schema": schema}


PATHS = {
    "task_id": "The task's id, `task_` and 26 characters.",
    "endpoint_id": "The endpoint's id, `endpoint_` and 26 characters.",
    "name": "The artifact's name, as in the task's `artifacts`.",
    "deployment": "The deployment's name, which tasks name as `model`.",
    "signed": "The signed end of a link that was given out.",
}
TEXT: Shown = {"type": "string", "minLength": 1, "maxLength": 255}
DATE: Shown = {"type": "string", "format": "date"}
MOMENT: Shown = {"type": "string", "format": "date-time"}
LIMIT = _query(
    "limit",
    "How many rows a page has; 100 at most, whatever is asked for.",
    {"type": "integer", "minimum": 1, "maximum": 999_999_999, "default": 20},
)
CURSOR = _query("cursor", "The `next_cursor` of the page before, with the same filters.", {"type": "string"})

TASK = schema.TaskSerializer
ENDPOINT = schema_endpoints.WebhookEndpointSerializer

# Each message: in words, and what its `data` is.
WEBHOOKS = {
    "task.succeeded": ("A task succeeded.", "Task"),
    "task.failed": ("A task failed; `data.error` says why.", "Task"),
    "task.canceled": ("A task was canceled.", "Task"),
    "task.refunded": ("Credits of a task were given back. Only webhook endpoints are told.", "Task"),
    "account.balance_low": (
        "The available credits, held ones left out, fell below the threshold; told again after a rise a tenth above.",
        "Account",
    ),
}

# What only parameters name.
SCHEMAS: dict[str, Shown] = {
    "Order": {"type": "string", "enum": ["asc", "desc"]},
    "UsageGroup": {"type": "string", "enum": ["day", "model", "meter", "key"]},
    "TaskPart": {"type": "string", "enum": ["all", *schema.HEAVY]},
}

OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/tasks"): Operation(
        id="createTask",
        tag="Tasks",
        summary="Submit a task",
        description=(
            "Name a `model` (a deployment), a `capability` (its default deployment is used) or both. The input is "
            "checked, the task is quoted and its ceiling is held before the answer: 202 with the whole task. With an "
            "`Idempotency-Key`, the same request again is answered 200 with the same task as it is now and "
            "`Idempotent-Replayed: true`."
        ),
        body=serializers.CreateTask,
        example="create_task",
        answers={
            202: Answer("The task was accepted.", TASK, ("Location", "Preference-Applied"), example="queued_task"),
            200: Answer(
                "The task that this Idempotency-Key made before.",
                TASK,
                ("Location", "Idempotent-Replayed", "Preference-Applied"),
                example="succeeded_task",
            ),
        },
        codes=(
            "insufficient_balance",
            "spend_cap_reached",
            "idempotency_key_reused",
            "unsupported_capability",
            "unsupported_model",
            "too_many_pending_tasks",
        ),
        parameters=("IdempotencyKey", "Prefer"),
    ),
    ("GET", "/v1/tasks"): Operation(
        id="listTasks",
        tag="Tasks",
        summary="List tasks",
        description=(
            "Your account's tasks, newest first, a page at a time. Rows are summaries; `expand` adds the heavy parts. "
            "A page of large tasks ends early: go by `has_more`."
        ),
        answers={200: Answer("A page of tasks.", schema.TaskListSerializer, example="task_list")},
        codes=("invalid_request", "invalid_cursor"),
        query=(
            _query(
                "status",
                "Only tasks of these statuses.",
                {"type": "array", "items": {"$ref": "#/components/schemas/TaskStatus"}, "minItems": 1},
            ),
            _query("capability", "Only tasks of this capability.", TEXT),
            _query("model", "Only tasks of this deployment.", TEXT),
            _query("client_reference", "Only tasks with this reference of yours.", TEXT),
            {
                "name": "metadata",
                "in": "query",
                "description": "Only tasks with these values in their metadata: `metadata[order]=7`.",
                "style": "deepObject",
                "explode": True,
                "schema": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 500}},
            },
            _query("created_after", "Only tasks created later than this moment.", MOMENT),
            _query("created_before", "Only tasks created earlier than this moment.", MOMENT),
            _query(
                "id",
                "Only these tasks; ids that are not yours are not found.",
                {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 100},
            ),
            LIMIT,
            CURSOR,
            _query("order", "By age: `desc` is newest first.", {"$ref": "#/components/schemas/Order"}),
            _query(
                "expand",
                "What each row carries beside the summary; `all` is everything.",
                {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/TaskPart"},
                    "minItems": 1,
                },
            ),
        ),
    ),
    ("GET", "/v1/tasks/{task_id}"): Operation(
        id="getTask",
        tag="Tasks",
        summary="Read a task",
        description=(
            "The whole task, with its `seq` as strong `ETag`. Send that as `If-None-Match` and an unchanged task is a "
            "304 without a body. While the task is unfinished, `Retry-After` says when to ask again. With `Prefer: "
            "wait=N` the answer comes when the task is final, or is another than the one that you name, or after N "
            "seconds; when too many wait already, it is 503 and you poll."
        ),
        answers={
            200: Answer("The task.", TASK, ("ETag", "Retry-After", "Preference-Applied"), example="succeeded_task"),
            304: Answer("The task has not changed.", None, ("ETag", "Retry-After", "Preference-Applied")),
        },
        codes=("task_not_found",),
        parameters=("IfNoneMatch", "Prefer"),
    ),
    ("POST", "/v1/tasks/{task_id}/cancel"): Operation(
        id="cancelTask",
        tag="Tasks",
        summary="Cancel a task",
        description=(
            "Ends the task now: whatever still runs changes nothing more. A task that has ended already is answered "
            "200 as it is, unchanged."
        ),
        body=serializers.ReasonedRequest,
        example="cancel_task",
        answers={200: Answer("The task, which has ended.", TASK, example="canceled_task")},
        codes=("task_not_found",),
    ),
    ("POST", "/v1/tasks/{task_id}/pause"): Operation(
        id="pauseTask",
        tag="Tasks",
        summary="Keep a queued task from starting",
        description="Its deadline and its ttl run on. A task that is paused already is answered as it is.",
        body=serializers.ReasonedRequest,
        answers={200: Answer("The task, `paused_at` set.", TASK)},
        codes=("task_not_found", "task_not_queued"),
    ),
    ("POST", "/v1/tasks/{task_id}/resume"): Operation(
        id="resumeTask",
        tag="Tasks",
        summary="Let a paused task start again",
        description="A task that is queued and not paused is answered as it is.",
        body=serializers.ReasonedRequest,
        answers={200: Answer("The task.", TASK)},
        codes=("task_not_found", "task_not_queued"),
    ),
    ("POST", "/v1/tasks/{task_id}/rerun"): Operation(
        id="rerunTask",
        tag="Tasks",
        summary="Run a final task again",
        description=(
            "Makes a new task with the same input that points back by `rerun_of`, quoted and charged on its own. A "
            "task and its reruns have at most one unfinished at a time."
        ),
        answers={
            202: Answer("The new task.", TASK, ("Location", "Preference-Applied"), example="queued_task"),
            200: Answer(
                "The task that this Idempotency-Key made before.",
                TASK,
                ("Location", "Idempotent-Replayed", "Preference-Applied"),
                example="succeeded_task",
            ),
        },
        codes=(
            "task_not_found",
            "task_not_final",
            "insufficient_balance",
            "spend_cap_reached",
            "idempotency_key_reused",
            "unsupported_capability",
            "unsupported_model",
            "too_many_pending_tasks",
        ),
        parameters=("IdempotencyKey", "Prefer"),
    ),
    ("GET", "/v1/tasks/{task_id}/events"): Operation(
        id="listTaskEvents",
        tag="Timeline",
        summary="Read a task's timeline",
        description=(
            "The events after a `seq`, oldest first, a page at a time. With `Accept: text/event-stream` they come as "
            "Server-Sent Events, and go on until the task is final: `id` is the `seq`, `event` the type, `data` an "
            "object of `seq`, `type`, `created_at` and `data`. `task.progress` tells the present state. Text that the "
            "task makes comes as `output.text`, all of it so far, and then `output.delta`, each an object of "
            "`attempt`, `offset` (in characters) and `text`, without an `id`. A stream that ends before the task does "
            "is asked for again with `Last-Event-ID`; when too many are open it is 503, and you poll."
        ),
        answers={
            200: Answer(
                "A page of events, or the stream.",
                schema.TaskEventListSerializer,
                media_types=("application/json", STREAM),
                example="event_list",
            ),
            204: Answer("There will be no more events to stream."),
        },
        parameters=("LastEventId",),
        codes=("invalid_request", "task_not_found"),
        query=(
            _query(
                "after",
                "The `seq` of the last event that you have.",
                {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_999, "default": 0},
            ),
        ),
    ),
    ("POST", "/v1/tasks/{task_id}/callback/redeliver"): Operation(
        id="redeliverCallback",
        tag="Callbacks",
        summary="Deliver a task's callback again",
        description="The same id and the same bytes, with fresh tries.",
        answers={202: Answer("The task, its callback pending again.", TASK, example="succeeded_task")},
        codes=("task_not_found", "not_found", "task_not_final"),
    ),
    ("DELETE", "/v1/tasks/{task_id}/content"): Operation(
        id="deleteTaskContent",
        tag="Tasks",
        summary="Delete a task's content",
        description=(
            "Deletes the input, the output, artifacts, streamed text and callback bodies of a task that has ended; a "
            "callback that is still owed ends as `failed` with `content_deleted`. Status, times, usage and money stay. "
            "Again without effect."
        ),
        answers={200: Answer("The task, `content_deleted_at` set.", TASK)},
        codes=("invalid_request", "task_not_found", "task_not_final"),
    ),
    ("POST", "/v1/quotes"): Operation(
        id="createQuote",
        tag="Offers",
        summary="Ask what a task would cost",
        description=(
            "Takes the body of a submission and answers the most that it would be charged, with the bound on each "
            "meter and the prices of now. Nothing is written or held. What a submission would refuse is refused "
            "alike, but for too little balance and too many unfinished tasks. `tasks:read` or `tasks:write` is enough."
        ),
        body=serializers.CreateTask,
        example="create_task",
        answers={200: Answer("The quote.", schema_offers.QuoteSerializer, example="quote")},
        codes=("insufficient_balance", "unsupported_capability", "unsupported_model"),
    ),
    ("GET", "/v1/deployments"): Operation(
        id="listDeployments",
        tag="Offers",
        summary="List what is offered",
        description="Every deployment that takes tasks, with the JSON Schema of its input and its prices of now.",
        answers={200: Answer("The catalogue.", schema_offers.DeploymentListSerializer, example="deployment_list")},
        codes=("invalid_request",),
        query=(_query("capability", "Only deployments of this capability.", {"type": "string", "minLength": 1}),),
    ),
    ("GET", "/v1/deployments/{deployment}"): Operation(
        id="getDeployment",
        tag="Offers",
        summary="Read what is offered by a name",
        description="One deployment that takes tasks.",
        answers={200: Answer("The deployment.", schema_offers.DeploymentSerializer, example="deployment")},
        codes=("not_found",),
    ),
    ("POST", "/v1/webhook_endpoints"): Operation(
        id="createWebhookEndpoint",
        tag="Callbacks",
        summary="Tell a URL of your account's events",
        description=(
            "From now on each event that `events` names is sent to the URL, signed with your account's callback "
            "secret, with the same tries as a task's own callback and beside it. An account has at most ten, and one "
            "for a URL. Events of tasks need the scope `tasks:read` besides, `account.balance_low` needs "
            "`billing:read`: a key passes on what it may read."
        ),
        body=schema_endpoints.CreateWebhookEndpoint,
        example="create_webhook_endpoint",
        answers={201: Answer("The endpoint.", ENDPOINT, ("Location",), example="webhook_endpoint")},
        codes=("endpoint_exists", "too_many_endpoints"),
    ),
    ("GET", "/v1/webhook_endpoints"): Operation(
        id="listWebhookEndpoints",
        tag="Callbacks",
        summary="List webhook endpoints",
        description="All of your account's, oldest first.",
        answers={
            200: Answer(
                "The endpoints.", schema_endpoints.WebhookEndpointListSerializer, example="webhook_endpoint_list"
            )
        },
        codes=("invalid_request",),
    ),
    ("GET", "/v1/webhook_endpoints/{endpoint_id}"): Operation(
        id="getWebhookEndpoint",
        tag="Callbacks",
        summary="Read a webhook endpoint",
        description="One of your account's.",
        answers={200: Answer("The endpoint.", ENDPOINT, example="webhook_endpoint")},
        codes=("not_found",),
    ),
    ("DELETE", "/v1/webhook_endpoints/{endpoint_id}"): Operation(
        id="deleteWebhookEndpoint",
        tag="Callbacks",
        summary="Delete a webhook endpoint",
        description="It is told nothing any more; what it was still owed ends as failed.",
        answers={204: Answer("It is deleted.")},
        codes=("not_found",),
    ),
    ("GET", "/v1/account"): Operation(
        id="getAccount",
        tag="Account",
        summary="Read your account",
        description="Balances, caps, counters and limits, as they are now.",
        answers={200: Answer("The account.", schema_money.AccountSerializer, example="account")},
        codes=("invalid_request",),
    ),
    ("GET", "/v1/account/transfers"): Operation(
        id="listTransfers",
        tag="Account",
        summary="List movements of credits",
        description="The account's statement, newest first, a page at a time. Each row shows the balances after it.",
        answers={200: Answer("A page of transfers.", schema_money.TransferListSerializer, example="transfer_list")},
        codes=("invalid_request", "invalid_cursor"),
        query=(
            _query("task", "Only transfers of this task.", TEXT),
            _query(
                "kind",
                "Only transfers of these kinds.",
                {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/TransferKind"},
                    "minItems": 1,
                },
            ),
            _query("created_after", "Only transfers later than this moment.", MOMENT),
            _query("created_before", "Only transfers earlier than this moment.", MOMENT),
            LIMIT,
            CURSOR,
            _query("order", "By age: `desc` is newest first.", {"$ref": "#/components/schemas/Order"}),
        ),
    ),
    ("GET", "/v1/usage"): Operation(
        id="listUsage",
        tag="Account",
        summary="Sum your usage",
        description=(
            "What tasks used and were billed, by the UTC day they ended, summed by what `group_by` names: at most 92 "
            "days and 5,000 sums. Without days it is the last 30."
        ),
        answers={200: Answer("The sums.", schema_money.UsageListSerializer, example="usage_list")},
        codes=("invalid_request",),
        query=(
            _query(
                "group_by",
                "What the sums are by.",
                {
                    "type": "array",
                    "items": {"$ref": "#/components/schemas/UsageGroup"},
                    "minItems": 1,
                    "default": ["day"],
                },
            ),
            _query("from", "The first day.", DATE),
            _query("to", "The last day.", DATE),
        ),
    ),
    ("GET", "/v1/tasks/{task_id}/artifacts/{name}"): Operation(
        id="getArtifact",
        tag="Artifacts",
        summary="Get a link to a file",
        description="Leads to a signed link, made for this request, that needs no key and is good for a few minutes.",
        answers={302: Answer("The link is in `Location`.", None, ("Location",))},
        codes=("not_found", "gone"),
    ),
    ("GET", "/v1/artifacts/{signed}"): Operation(
        id="downloadArtifact",
        tag="Artifacts",
        summary="Download a file by its link",
        description="The file, or one range of its bytes. The link is what `getArtifact` leads to.",
        answers={
            200: Answer("The file.", BINARY, ("ETag",), ("application/octet-stream",)),
            206: Answer("A range of its bytes.", BINARY, ("ETag",), ("application/octet-stream",)),
            304: Answer("You have this file already.", None, ("ETag",)),
            416: Answer("The file has no such bytes."),
        },
        codes=("forbidden", "not_found", "gone"),
        public=True,
    ),
}
