"""`up` for real: engines, web, workers and sweeper in a data folder of their own, until they are asked to stop."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from itertools import takewhile
from pathlib import Path
from urllib.parse import quote

import pytest

from config import ports
from config.settings import BASE_DIR
from tests.config.running import Up, ask, environment, free_port, living, manage, processes, remove, until

SUBMIT = """
from tests.builders import deployment, submit
answer = str(submit(to=deployment({name!r}, queue={name!r}), input={input!r}).pk)
"""
LOOK = """
from tasks.models import Task
task = Task.objects.get(pk={task!r})
answer = [task.status, task.retries_left, [run.reason_resolved for run in task.runs.order_by("number")]]
"""
HASTE = {"SWEEP_SECONDS": "0.2", "RETRY_BACKOFF_SECONDS": "0.1", "STOP_SECONDS": "1"}


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="cf-up-"))
    yield path
    remove(path / "data")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def with_engines():
    """A data folder whose engines somebody else has started, with its tables."""
    path = Path(tempfile.mkdtemp(prefix="cf-up-"))
    manage(path, "migrate", "-v0")
    yield path
    remove(path)


@pytest.fixture
def up():
    """Start `up`; whatever happens, none is left."""
    begun = []

    def start(data, *options, **more):
        begun.append(Up(data, *options, **more))
        return begun[-1]

    yield start
    for one in begun:
        print("\n".join(one.lines))
        one.finish()


@pytest.fixture(scope="module")
def serving():
    """An `up` that is shared by tests that let it live."""
    path = Path(tempfile.mkdtemp(prefix="cf-up-"))
    running = Up(path, **HASTE)
    try:
        yield running.ready()
    finally:
        print("\n".join(running.lines))
        running.finish()
        remove(path)


def engines(data):
    return manage(data, "engines", "status").stdout.count(": running")


def servers(data):
    """The pids of the engines of this folder."""
    return [int(line.partition(", pid ")[2].partition(",")[0]) for line in status(data) if ", pid " in line]


def status(data):
    return manage(data, "engines", "status").stdout.splitlines()


def test_one_command_from_nothing_serves_until_ctrl_c_and_leaves_nothing(folder, up):
    data = folder / "data"

    running = up(folder / "elsewhere", "--data", str(data), "--workers", "3").ready()

    assert running.lines[0].startswith(f"Counterfoil starts: http://127.0.0.1:{running.port}, ")
    assert str(data) in running.lines[0]
    assert running.get("/admin/login/") == 200
    assert running.get("/static/admin/css/base.css") == 200
    until(lambda: sorted(running.family().values()) == named(running, workers=3))
    everything = [*running.family(), *servers(data)]
    assert len(everything) == 13

    assert running.stop(signal.SIGINT) == 0
    assert running.lines[-1] == "Counterfoil has stopped."
    assert not living(everything)
    assert not (folder / "elsewhere").exists()


def named(running, *, workers):
    worker, callbacks = f"worker-{running.process.pid}", f"callbacks-{running.process.pid}"
    titles = [
        "web",
        "web worker-1",
        "sweep",
        worker,
        callbacks,
        *[f"{callbacks} process"] * 3,
        *[f"{worker} process"] * workers,
    ]
    return sorted(f"counterfoil: {title}" for title in titles)


def test_a_queue_that_is_added_later_is_served(serving):
    task = ask(serving.data, SUBMIT.format(name="added-later", input={}))

    until(lambda: ask(serving.data, LOOK.format(task=task))[0] == "succeeded", within=15)


@pytest.mark.chaos
def test_two_data_folders_are_served_at_once(serving, folder, up):
    second = up(folder / "data").ready()

    assert serving.get("/admin/login/") == second.get("/admin/login/") == 200
    assert second.stop(signal.SIGTERM) == 0
    assert serving.get("/admin/login/") == 200


def test_a_killed_process_is_started_again(serving):
    whole = named(serving, workers=2)
    until(lambda: sorted(serving.family().values()) == whole)
    before = serving.family()
    for name in ("web", r"worker-\d+", "sweep"):
        os.kill(serving.child(f"counterfoil: {name}"), signal.SIGKILL)

    until(lambda: any("web" in line and "killed by SIGKILL" in line for line in serving.lines))
    until(lambda: serving.serves("/admin/login/"))
    until(lambda: sorted(serving.family().values()) == whole)
    assert len(set(before) & set(serving.family())) == 4  # the deliverers


def test_a_stop_gives_back_what_could_not_be_finished_and_leaves_the_engines_of_others(with_engines, up):
    running = up(with_engines, **HASTE).ready()
    sleep = {"how": "sleep", "seconds": 60, "attempts": 1}
    task = ask(with_engines, SUBMIT.format(name="slow", input=sleep))
    until(lambda: ask(with_engines, LOOK.format(task=task))[0] == "running", within=15)

    assert running.stop(signal.SIGTERM) == 0

    assert ask(with_engines, LOOK.format(task=task)) == ["queued", 2, ["worker_shutdown", None]]
    assert engines(with_engines) == 2


def test_an_up_that_is_killed_takes_its_processes_with_it_and_the_next_works(with_engines, up):
    running = up(with_engines).ready()
    family = running.family()

    running.process.kill()

    until(lambda: not living(family), within=10)
    assert up(with_engines).ready().get("/admin/login/") == 200


def test_a_first_start_that_is_interrupted_leaves_nothing(folder, up):
    data = folder / "data"
    running = up(data)
    until((data / "postgres.log").exists)

    assert running.stop(signal.SIGTERM) == 130

    assert engines(data) == 0
    assert running.lines == []
    assert not [args for _, args in processes().values() if str(data) in args]


@pytest.mark.chaos
def test_users_of_one_folder_share_its_engines_which_the_last_one_takes_along(folder, up):
    data = folder / "data"
    first, second = up(data).ready(), up(data)

    demo = manage(data, "demo")
    assert (demo.returncode, demo.stdout) == (1, "")
    assert demo.stderr == f"`up` or another demo is running on {data}: stop it first, or use --data DIR.\n"

    second.ready()
    assert first.stop(signal.SIGTERM) == 0
    assert engines(data) == 2
    assert second.get("/admin/login/") == 200

    os.kill(servers(data)[0], signal.SIGKILL)
    until(lambda: "PostgreSQL had ended; it is started again." in second.lines)
    until(lambda: second.get("/v1/tasks") == 401)
    assert ask(data, "from tasks.models import Deployment; answer = Deployment.objects.exists()")

    place = (data / "home").read_text().strip() if (data / "home").exists() else data
    postgres = servers(data)[0]
    (Path(place) / "pg" / "PG_VERSION").unlink()
    os.kill(postgres, signal.SIGKILL)
    assert second.process.wait(30) == 1
    second.listener.join(10)
    assert second.lines[-1].startswith("CommandError: Everything is stopped: PostgreSQL did not start; ")
    assert engines(data) == 0


def test_an_abbreviated_option_is_refused(with_engines):
    for command in ("up", "demo"):
        done = manage(with_engines, command, "--dat", "elsewhere")

        assert done.returncode == 2
        assert "unrecognized arguments: --dat elsewhere" in done.stderr


def test_a_port_is_claimed_before_anybody_listens(with_engines):
    port = free_port()
    with ports.claimed("127.0.0.1", port):
        done = manage(with_engines, "up", "--port", str(port))
        web = subprocess.run(
            [sys.executable, "-m", "config.server", "--port", str(port)],
            cwd=BASE_DIR, env=environment(with_engines), capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    refusal = f"Cannot listen on 127.0.0.1 port {port}: another Counterfoil has this port.\n"
    assert (done.returncode, done.stderr) == (1, f"CommandError: {refusal}")
    assert (web.returncode, web.stderr) == (1, refusal)
    with ports.claimed("127.0.0.1", port), ports.claimed("127.0.0.1", port):
        pass  # free again, and for those whom its holder starts


def test_a_port_that_is_taken_is_said_in_one_sentence(folder, up):
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        done = manage(folder / "data", "up", "--port", str(port))

    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        f"CommandError: Cannot listen on 127.0.0.1 port {port}: Address already in use.\n"
    )
    assert engines(folder / "data") == 0


def test_each_line_of_the_procfile_works_with_external_engines(with_engines, tmp_path):
    entry = ask(with_engines, "from django.conf import settings; answer = [str(settings.EMBEDDED.postgres_sockets)]")
    lines = dict(line.split(": ", 1) for line in (BASE_DIR / "Procfile").read_text().splitlines())
    external = {
        "DATABASE_URL": f"postgres://counterfoil@/counterfoil?host={quote(entry[0], safe='')}",
        "REDIS_URL": f"unix://{with_engines}/run/valkey.sock?db=1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        **{name: (with_engines / name).read_text().strip() for name in ("SECRET_KEY", "ENCRYPTION_KEYS")},
    }
    release = subprocess.run(
        ["sh", "-c", lines.pop("release")],
        cwd=BASE_DIR, env={**environment(tmp_path), **external}, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    programs = [
        (name, f"os.execvp('sh', ['sh', '-c', {line!r}])", "") for name, line in lines.items() if name != "sweep"
    ]
    sweep = ("sweep", f"os.execvp('sh', ['sh', '-c', {lines['sweep']!r}])", QUIET)

    with supervise(tmp_path, *programs, sweep, **external) as process:
        said = list(takewhile(lambda line: line != "ready\n", iter(process.stdout.readline, "")))
        process.terminate()
        out, _ = process.communicate(timeout=30)

    assert (release.returncode, release.stderr) == (0, b"")
    assert list(lines) == ["web", "worker", "callbacks", "sweep"]
    assert not [line for line in [*said, *out.splitlines()] if "rror" in line or "ended (" in line]
    assert process.returncode == 0


# The supervisor alone, with small programs.


def supervise(tmp_path, *programs, first="", **more):
    """A process that supervises these programs, each a name, its Python code and its other fields."""
    for name, code, _ in programs:
        (tmp_path / f"{name}.py").write_text(f"import os, signal, sys, time\n{code}\n")
    made = ", ".join(
        f"Program({name!r}, (sys.executable, '{tmp_path}/{name}.py'), {more})" for name, _, more in programs
    )
    script = f"""
import signal, sys
from config import processes
from config.processes import GivenUp, Program, Supervisor
{first}
processes.PAUSE = 0.01
supervisor = Supervisor([{made}], out=sys.stdout)
def ready():
    supervisor.say("ready")
    return True
try:
    supervisor.run(ready=ready)
except GivenUp as error:
    sys.exit(str(error))
"""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=BASE_DIR,
        env={**environment(tmp_path), **more, "PYTHONPATH": str(BASE_DIR)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pid_of(process, name):
    """The pid that the program prints."""
    said = next(line for line in iter(process.stdout.readline, "") if line.startswith(f"{name} "))
    return int(said.split()[-1])


QUIET = "reports=False"
IDLE = "print(os.getpid(), flush=True); time.sleep(60)"


def test_a_program_that_does_not_stay_alive_ends_all_with_a_sentence(tmp_path):
    with supervise(tmp_path, ("good", IDLE, QUIET), ("bad", "sys.exit('no luck')", "")) as process:
        out, said = process.communicate(timeout=30)

    good = int(next(line for line in out.splitlines() if line.startswith("good | ")).split()[-1])
    assert process.returncode == 1
    assert said == "bad ended 5 times within 60 s (exit code 1): no luck\n"
    assert out.count("bad  | no luck\n") == 5
    assert "bad  | ended (exit code 1); it is started again in 0.0 s\n" in out
    assert not living([good])


def test_lines_are_whole_and_tracebacks_stay_together(tmp_path):
    chatty = "for _ in range(300): print('chat' * 20, flush=True); time.sleep(0.001)"
    failing = """
sys.stderr.write("Traceback\\n  one\\n")
time.sleep(0.005)
sys.stderr.write("  tw")
time.sleep(0.1)
sys.stderr.write("o\\nError: x\\nrest")
time.sleep(60)
"""
    with supervise(tmp_path, ("chatty", chatty, QUIET), ("b", failing, QUIET)) as process:
        time.sleep(1.5)
        process.terminate()
        lines = process.communicate(timeout=30)[0].splitlines()

    assert {line[:9] for line in lines} == {"chatty | ", "b      | ", "ready"}
    assert {line for line in lines if "chatchat" in line} == {"chatty | " + "chat" * 20}
    at = lines.index("b      | Traceback")
    assert lines[at + 1] == "b      |   one"
    at = lines.index("b      |   two")
    assert lines[at + 1] == "b      | Error: x"
    assert lines[-1] == "b      | rest"


def test_programs_stop_stage_by_stage_and_the_stubborn_are_killed(tmp_path):
    polite = "signal.signal(15, lambda *_: sys.exit(print('bye', flush=True)))"
    stubborn = "signal.signal(15, lambda *_: print('no', flush=True))"
    for_ever = "\nprint('here', flush=True)\nwhile True: time.sleep(60)"
    with supervise(
        tmp_path,
        ("last", polite + for_ever, "stage=1, reports=False"),
        ("first", stubborn + for_ever, "reports=False, farewell=((signal.SIGTERM, 0.5),)"),
    ) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        out, said = process.communicate(timeout=30)

    assert (process.returncode, said) == (0, "")
    assert sorted(lines) == ["first | here\n", "last  | here\n", "ready\n"]
    assert out == "first | no\nlast  | bye\n"


def test_a_second_ctrl_c_ends_all_at_once(tmp_path):
    stubborn = "for n in (2, 15): signal.signal(n, signal.SIG_IGN)\n" + IDLE
    with supervise(tmp_path, ("stubborn", stubborn, "reports=False, farewell=((signal.SIGTERM, 50),)")) as process:
        child = pid_of(process, "stubborn")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)

        assert process.wait(5) == 0
    assert not living([child])


def test_a_hang_up_ends_all_unless_nohup_was_asked_for(tmp_path):
    with supervise(tmp_path, ("a", IDLE, QUIET)) as process:
        child = pid_of(process, "a")
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0
    assert not living([child])

    with supervise(tmp_path, ("a", IDLE, QUIET), first="signal.signal(1, signal.SIG_IGN)") as process:
        child = pid_of(process, "a")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert living([child])
        process.terminate()
        assert process.wait(10) == 0


def test_ready_is_said_once_all_have_reported(tmp_path):
    reports = """
from config.processes import report_ready
time.sleep(0.3)
print("working", flush=True)
time.sleep(0.2)
report_ready()
time.sleep(60)
"""
    with supervise(tmp_path, ("a", reports, ""), ("b", "time.sleep(60)", QUIET)) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        process.terminate()

        assert process.communicate(timeout=30) == ("", "")
    assert lines == ["a | working\n", "ready\n"]


def test_a_process_leads_a_group_of_its_own(tmp_path):
    with supervise(tmp_path, ("a", IDLE, QUIET)) as process:
        child = pid_of(process, "a")
        groups = os.getpgid(child), os.getpgid(process.pid)
        process.terminate()

        assert process.wait(10) == 0
    assert groups[0] == child != groups[1]
