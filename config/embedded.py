"""PostgreSQL and Valkey from wheels, for whoever has not set DATABASE_URL or REDIS_URL.

Both listen on unix sockets only, inside folders that only their owner may enter, and outlive the command that started
them. Everything about a data folder happens under one lock, because two servers on the same files would lose data.
"""

import base64
import contextlib
import errno
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured

from config import engines_postgres, engines_valkey
from config.engines_layout import EngineError, Layout, is_root, layout, write_private
from config.engines_process import PATIENCE, Engine, running, start, wait
from config.engines_process import stop as stop_engine

__all__ = ["EngineError", "Layout", "Started", "State", "adopt_data_folder", "broker_url", "database", "ensure"]
__all__ += ["layout", "needs_engines", "redis_url", "secret", "status", "stop"]

POSTGRES_AT_LEAST = 16
QUIET_COMMANDS = {
    *("help", "version", "check", "makemigrations", "spectacular", "engines"),
    *("compilemessages", "makemessages", "collectstatic"),
}
SECRETS: dict[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "ENCRYPTION_KEYS": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
}


@dataclass(frozen=True)
class Started:
    """The engines that one `ensure()` itself has started."""

    postgres: bool = False
    valkey: bool = False


@dataclass(frozen=True)
class State:
    """What `engines status` says about one engine: running, stopped or external."""

    engine: str
    state: str
    pid: int | None
    version: str
    socket: str
    data: str


def database(place: Layout) -> dict[str, Any]:
    """Django's entry for the embedded PostgreSQL."""
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "counterfoil",
        "USER": "counterfoil",
        "HOST": str(place.postgres_sockets),
        "PORT": "5432",
    }


def redis_url(place: Layout) -> str:
    """The embedded Valkey, as redis-py and Django's cache write it."""
    return f"unix://{place.valkey_socket}?db=0"


def broker_url(url: str) -> str:
    """The same server as Celery writes it: only unix sockets differ."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    number = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={number}"


def needs_engines(argv: list[str]) -> bool:
    """Whether a command line talks to the engines; what only prints or writes files does not."""
    if len(argv) < 2 or argv[1].startswith("-") or argv[1] in QUIET_COMMANDS:
        return False
    return not {"-h", "--help", "--version"} & set(argv[2:])


def adopt_data_folder(argv: list[str]) -> None:
    """Let `up --data DIR` and `demo --data DIR` choose the data folder, before the settings are read."""
    if argv[1:2] not in (["up"], ["demo"]):
        return
    for word, following in zip(argv[2:], [*argv[3:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == "--data" and (value or following):
            os.environ["COUNTERFOIL_DATA"] = str(Path(value or following).expanduser().absolute())


def secret(place: Layout, name: str) -> str:
    """The secret kept in the data folder, or a throwaway one for commands that run before there is any."""
    if not place.embeds_postgres:
        raise ImproperlyConfigured(f"Set {name}: none is generated while DATABASE_URL is set.")
    return _kept(place, name) or SECRETS[name]()


def _kept(place: Layout, name: str) -> str:
    try:
        return (place.data / name).read_text().strip()
    except OSError:
        return ""


def _missing_secrets(place: Layout) -> list[str]:
    return [n for n in SECRETS if place.embeds_postgres and not os.environ.get(n) and not _kept(place, n)]


def _keep_secrets(place: Layout) -> None:
    for name in _missing_secrets(place):
        write_private(place.data / name, SECRETS[name]())


def ensure(began: Callable[[Engine], None] = lambda _: None) -> Started:
    """Start what is embedded and not running, and tell what was started; refuse servers that would lose tasks.

    `began` hears of each engine as soon as it runs, while the folder is locked.
    """
    place = layout()
    _refuse_unfit_servers(place)
    refuse_platform(place)
    with _in_one_sentence():
        if _complete(place):
            return Started()
        with arranging(place):
            place = engines_postgres.settle(place)
            _keep_secrets(place)
            return Started(*(start(engine, began) for engine in engines(place)))


def stop(place: Layout, chosen: Started = Started(postgres=True, valkey=True)) -> None:
    """Stop the embedded engines, or those that an `ensure()` has started; stopping a stopped one is no error."""
    # A folder that was removed has nothing to lock, but its servers may still run.
    with arranging(place) if place.data.exists() else contextlib.nullcontext():
        for engine, wanted in zip(engines(place), (chosen.postgres, chosen.valkey), strict=True):
            if wanted:
                stop_engine(engine)


def status(place: Layout) -> list[State]:
    """One state per engine, PostgreSQL first."""
    return [_state(engine) for engine in engines(place)]


def engines(place: Layout) -> tuple[Engine, Engine]:
    """PostgreSQL and Valkey."""
    return engines_postgres.engine(place), engines_valkey.engine(place)


def _state(engine: Engine) -> State:
    if not engine.embedded:
        return State(engine.name, "external", None, "", "", "")
    pid = running(engine)
    answers = pid is not None and engine.answers()
    return State(
        engine=engine.name,
        state="running" if answers else "stopped",
        pid=pid if answers else None,
        version=engine.version() if answers else "",
        socket=str(engine.socket),
        data=str(engine.folder),
    )


def _complete(place: Layout) -> bool:
    return all(engine.answers() for engine in engines(place) if engine.embedded) and not _missing_secrets(place)


@contextlib.contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn what the operating system refuses into an EngineError."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{Path(error.cmd[0]).name} took longer than {error.timeout:.0f} s.") from error
    except OSError as error:
        if is_root() and error.errno in (errno.EPERM, errno.EINVAL):
            raise EngineError(
                "PostgreSQL refuses root, and root may not change to another user here: "
                "run as an ordinary user, or set DATABASE_URL."
            ) from error
        raise EngineError(
            f"The embedded engines cannot work in {error.filename or layout().data} ({error.strerror}): "
            "choose another folder with COUNTERFOIL_DATA, or set DATABASE_URL and REDIS_URL."
        ) from error


def alive(place: Layout) -> bool:
    """Whether the embedded servers exist; a busy one counts."""
    return all(running(engine) for engine in engines(place) if engine.embedded)


@contextlib.contextmanager
def arranging(place: Layout) -> Iterator[None]:
    """One process at a time arranges a data folder, and only processes of the user who began it."""
    import fcntl

    with _in_one_sentence(), contextlib.ExitStack() as closed:
        place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(place.data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        closed.callback(os.close, handle)
        owner = os.fstat(handle).st_uid
        if owner != os.geteuid():
            raise EngineError(f"{place.data} belongs to uid {owner}: choose another folder with COUNTERFOIL_DATA.")
        if not wait(PATIENCE, lambda: _acquires(partial(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB))):
            raise EngineError(f"Another process holds {place.data / 'lock'}: end it, or wait for it.")
        yield


def _acquires(lock: Callable[[], None]) -> bool:
    try:
        lock()
    except BlockingIOError:
        return False
    return True


def refuse_platform(place: Layout) -> None:
    """Say which variables to set where the wheels do not run."""
    unset = [("DATABASE_URL", place.embeds_postgres), ("REDIS_URL", place.embeds_valkey)]
    variables = " and ".join(name for name, embedded in unset if embedded)
    if variables and not _is_supported():
        raise EngineError(f"The embedded engines need Linux with glibc, or macOS: set {variables}.")


def _is_supported() -> bool:
    if sys.platform != "linux":
        return sys.platform == "darwin"
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


def _refuse_unfit_servers(place: Layout) -> None:
    if not place.embeds_postgres:
        _refuse_old_postgres(os.environ["DATABASE_URL"])
    if not place.embeds_valkey:
        engines_valkey.refuse_evicting(_external_policy(os.environ["REDIS_URL"]))


def _refuse_old_postgres(url: str) -> None:
    """Refuse a PostgreSQL that is too old; one that cannot be reached now may be later."""
    if not url.startswith(("postg", "pgsql", "psql")):
        return  # the settings refuse it
    try:
        with psycopg.connect(f"postgresql:{url.partition(':')[2]}", connect_timeout=3) as connection:
            version = connection.info.server_version // 10_000
    except psycopg.Error:
        return
    if version < POSTGRES_AT_LEAST:
        raise EngineError(f"DATABASE_URL is PostgreSQL {version}: Counterfoil needs {POSTGRES_AT_LEAST} or newer.")


def _external_policy(url: str) -> str:
    """The server's eviction policy; empty when it cannot be reached or keeps its settings to itself."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=3, socket_timeout=3, retry=Retry(NoBackoff(), 0), decode_responses=True
        ) as client:
            return str(client.config_get("maxmemory-policy").get("maxmemory-policy", ""))
    except redis.RedisError:
        return ""
    except ValueError as error:
        raise EngineError(f"REDIS_URL is not a Redis URL: {error}") from error
