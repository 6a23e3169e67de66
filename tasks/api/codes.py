"""Every `error.code` of the API: its HTTP status, what it means, and what to do. The documents are made from this."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """What a client needs to know of a code; `retryable`: the same request may succeed later."""

    status: int
    meaning: str
    remedy: str
    retryable: bool = False


CODES = {
    "invalid_json": Code(
        400,
        "The body is not JSON in UTF-8.",
        "Send one JSON object; check quotes, commas and that nothing follows it.",
    ),
    "invalid_header": Code(
        400,
        "A header cannot be read or is out of its bounds.",
        "Mend the header that the message names.",
    ),
    "unauthorized": Code(
        401,
        "The request carries no API key.",
        "Send `Authorization: Bearer <key>`.",
    ),
    "invalid_api_key": Code(
        401,
        "The API key is unknown, revoked or expired.",
        "Use another key; an operator can issue one.",
    ),
    "insufficient_balance": Code(
        402,
        "The available credits do not cover the quote.",
        "Add credits, or ask for less; `POST /v1/quotes` tells the price of a request.",
    ),
    "spend_cap_reached": Code(
        402,
        "The request would exceed the spend cap of this UTC month.",
        "Raise the cap, or wait for the next month.",
    ),
    "forbidden": Code(
        403,
        "The request is not allowed, as a link with a wrong signature is not, nor plain HTTP where HTTPS is spoken.",
        "Ask for the link again; send `https://`, and have a key replaced that was sent in the clear.",
    ),
    "insufficient_scope": Code(
        403,
        "The API key lacks the scope that the request needs.",
        "Use a key with the scope that the message names.",
    ),
    "account_disabled": Code(
        403,
        "The account is disabled; its accepted tasks run on.",
        "Ask the operator of this service.",
    ),
    "task_not_found": Code(
        404,
        "The account has no task of this id.",
        "Check the id, and that the key belongs to the account that created the task.",
    ),
    "not_found": Code(
        404,
        "There is nothing at this path or of this name.",
        "Check the path against the API's description.",
    ),
    "method_not_allowed": Code(
        405,
        "The path does not know this method.",
        "Use one of those in the `Allow` header.",
    ),
    "not_acceptable": Code(
        406,
        "The answer has no form that `Accept` allows.",
        "Accept `application/json`.",
    ),
    "idempotency_key_reused": Code(
        409,
        "The Idempotency-Key belongs to a request with another body.",
        "Use a new key for a new request, and the same body for a repeated one.",
    ),
    "task_not_final": Code(
        409,
        "The task, or the newest rerun of it, has not ended yet.",
        "Wait for its end, or cancel it.",
    ),
    "task_not_queued": Code(
        409,
        "The task is not queued any more.",
        "Read the task: it runs or has ended.",
    ),
    "gone": Code(
        410,
        "It was here, and was deleted or has expired.",
        "Ask for a fresh link, or run the task again.",
    ),
    "payload_too_large": Code(
        413,
        "The body is larger than 1 MiB.",
        "Send less, or name large inputs by their URL.",
    ),
    "unsupported_media_type": Code(
        415,
        "The body is of a type that is not read here.",
        "Send `Content-Type: application/json`.",
    ),
    "invalid_request": Code(
        422,
        "A value is missing, unknown, out of bounds or of the wrong type.",
        "Mend the value that `param`, a JSON Pointer, points at.",
    ),
    "invalid_cursor": Code(
        422,
        "The cursor is not one of ours, or was made with other filters.",
        "Begin again without a cursor, and keep the filters from page to page.",
    ),
    "unsupported_capability": Code(
        422,
        "No active deployment offers this capability.",
        "Choose one that `GET /v1/deployments` lists.",
    ),
    "unsupported_model": Code(
        422,
        "No active deployment has this name, or it is not for this capability.",
        "Choose one that `GET /v1/deployments` lists.",
    ),
    "rate_limited": Code(
        429,
        "The key has made as many requests as it may in this minute.",
        "Wait as long as `Retry-After` says; poll with `If-None-Match`, since a 304 does not count.",
        retryable=True,
    ),
    "endpoint_exists": Code(
        409,
        "The account has a webhook endpoint of this URL.",
        "List the endpoints; delete the one of this URL to change its events.",
    ),
    "too_many_endpoints": Code(
        409,
        "The account has ten webhook endpoints, which is the most.",
        "Delete one that is not needed, or let one URL hear of several events.",
    ),
    "too_many_pending_tasks": Code(
        429,
        "As many tasks are unfinished as are allowed.",
        "Wait for some to end, then send the request again.",
        retryable=True,
    ),
    "internal_error": Code(
        500,
        "Something went wrong on our side.",
        "Send the request again with the same Idempotency-Key; report the request id if it stays.",
        retryable=True,
    ),
    "unavailable": Code(
        503,
        "The service cannot answer now.",
        "Send the request again, with the same Idempotency-Key, after as long as `Retry-After` says.",
        retryable=True,
    ),
}

# What a refusal of the framework is called, which knows its status only.
OF_STATUS = {
    400: "invalid_json",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
