"""What was sent to a receiver, to read and to repeat: the request as it left, and as a command for a shell."""

import hashlib
import shlex
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from billing.admin.screens import when
from billing.credentials import decrypt
from billing.models import Account
from tasks.callbacks import FORMATS, message_id, proves
from tasks.models import Callback, CallbackAttempt
from tasks.net import ForbiddenUrl, check_url

# A shell takes an argument of 128 kB at most; above this the body comes from the file that the page gives out.
INLINE = 16_384
HERE = "http://localhost:8000"
# What the client that repeats a request says itself.
ITS_OWN = {"host", "content-length"}
STANDARD = "standard"


@dataclass(frozen=True)
class Sent:
    """A try's request as text. `told` says how far it can be believed, `signed` by which secrets."""

    http: str
    told: str
    signed: tuple[str, ...] = ()


def sent(attempt: CallbackAttempt, callback: Callback) -> Sent:
    """The request of a try: as it left where that was kept, computed again where it was not."""
    if attempt.request_headers == {}:
        return Sent("", "Nothing was sent: no connection was made.")
    if attempt.request_headers:
        return Sent(_http(callback, attempt.request_headers), "As it left.", _signers(callback, attempt))
    if not callback.body:
        return Sent("", "Its headers were not kept.")
    headers = signed(callback, at=int(attempt.started_at.timestamp()))
    return Sent(
        _http(callback, headers),
        "Recomputed: the headers of this try were not kept. The id, the time and the body are those that were sent; "
        "the signature is made with the present secret.",
    )


def signed(callback: Callback, *, at: int) -> dict[str, str]:
    """The headers that a try at this second would have, by the secrets that are good now."""
    account = callback.account
    previous = account.callback_secret_previous_until and account.callback_secret_previous_until > timezone.now()
    secrets = [account.callback_secret, *([account.callback_secret_previous] if previous else [])]
    return FORMATS[callback.format].headers(callback.pk, callback.body.encode(), [*map(decrypt, secrets)], at)


def curl(callback: Callback, headers: dict[str, str]) -> str:
    """A command that sends this request to a machine of one's own; every part is quoted for the shell."""
    said = [f"{name}: {value}" for name, value in headers.items() if name.lower() not in ITS_OWN]
    body = ("--data-raw", callback.body) if len(callback.body) <= INLINE else ("--data-binary", f"@{file_of(callback)}")
    begins = ("curl", "--request", "POST", "--globoff", HERE + target(callback.url))
    return " \\\n  ".join(map(shlex.join, [begins, *(("--header", header) for header in said), body]))


def file_of(callback: Callback) -> str:
    return f"{message_id(callback.pk)}.json"


def target(url: str) -> str:
    """A URL's path and query, as the request line has them; nothing is sent to a URL that is not allowed."""
    try:
        return check_url(url).raw_path_qs
    except ForbiddenUrl:
        return "/"


def fingerprint(callback: Callback) -> dict[str, Any]:
    """By what two bodies are told apart."""
    body = callback.body.encode()
    return {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


def _http(callback: Callback, headers: dict[str, str]) -> str:
    lines = [f"POST {target(callback.url)} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\n".join(lines)


def _signers(callback: Callback, attempt: CallbackAttempt) -> tuple[str, ...]:
    """Which of the account's secrets made the signatures; unsaid when the body is gone or no standard one."""
    if callback.format != STANDARD or not callback.body:
        return ()
    found = tuple(
        name
        for name, secret in _secrets(callback.account)
        if proves(attempt.request_headers, callback.body.encode(), secret=decrypt(secret))
    )
    return found or ("a secret that has been replaced since",)


def _secrets(account: Account) -> list[tuple[str, str]]:
    known = [("the present secret of the account", account.callback_secret)]
    if account.callback_secret_previous:
        until = when(account.callback_secret_previous_until)
        known.append((f"its previous secret (good until {until})", account.callback_secret_previous))
    return known
