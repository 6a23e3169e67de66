"""The README's two commands, as written, on what a stranger has: a fresh clone, an empty home, an empty cache."""

import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DEMO_SECONDS = 60
# Tests of files, processes and engines, which are another user's here. The rest is the same for everybody.
OF_THE_USER = "tests/config tests/test_demo.py tests/test_service.py tests/test_architecture.py"
pytestmark = [pytest.mark.fresh, pytest.mark.timeout(1500)]

# What a stranger's shell would not have: our home, our virtual environment, our settings.
OURS = re.compile(
    r"HOME|XDG_.*|UV_.*|VIRTUAL_ENV.*|PYTHON.*|PYTEST.*|DJANGO.*|PATH|.*_URL|EXTRA_APPS|COUNTERFOIL.*|CALLBACK.*"
)


def commands() -> list[str]:
    """The commands that the README tells to install and run with, in its order."""
    return re.findall(r"^pip install uv && .*$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A bare Python with pip, readable by everybody: this one's installation without what was added to it."""
    there = Path("/var/tmp") if os.geteuid() == 0 else tmp_path_factory.mktemp("python")
    home = there / f"bare-python-{os.getpid()}"
    shutil.copytree(sys.base_prefix, home, symlinks=True, ignore=shutil.ignore_patterns("site-packages", "test", "*.a"))
    (home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages").mkdir()
    subprocess.run([home / "bin" / "python3", "-m", "ensurepip"], check=True, capture_output=True)
    for name in ("pip", "python"):
        (home / "bin" / name).unlink(missing_ok=True)
        (home / "bin" / name).symlink_to(f"{name}3")
    give(home, pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody"))
    yield home
    shutil.rmtree(home)


@pytest.fixture
def stranger(request, python):
    """A user with a 0700 home in which the clone lies: root, or somebody else."""
    who = pwd.getpwnam("nobody") if request.param == "plain user" else pwd.getpwuid(os.geteuid())
    home = Path("/var/tmp") / f"stranger-{os.getpid()}-{who.pw_name}"
    subprocess.run(["git", "clone", "-q", ROOT, home / "counterfoil"], check=True)
    give(home, who)
    home.chmod(0o700)
    yield who, home
    if (home / "counterfoil" / ".venv").exists():
        run(".venv/bin/python manage.py engines stop", who, home, python, timeout=60)
    elsewhere = home / "counterfoil" / ".data" / "home"
    if elsewhere.exists():
        shutil.rmtree(elsewhere.read_text().strip())
    shutil.rmtree(home)


def run(command, who, home, python, *, timeout):
    """Run a line of shell in the clone as that user; what it printed, and its exit code."""
    environment = {name: value for name, value in os.environ.items() if not OURS.fullmatch(name)}
    path = f"{python}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    change = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []} if who.pw_uid != os.geteuid() else {}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=home / "counterfoil",
        env=environment | {"HOME": str(home), "PATH": path, "USER": who.pw_name, "LD_LIBRARY_PATH": f"{python}/lib"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **change,
    )


def give(folder, who):
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{who.pw_uid}:{who.pw_gid}", folder], check=True)


@pytest.mark.parametrize("stranger", ["owner of a 0700 home", "plain user"], indirect=True)
def test_the_demo_works_for_a_stranger(stranger, python):
    who, home = stranger
    demo, _ = commands()

    first = run(demo, who, home, python, timeout=300)
    assert first.returncode == 0, first.stdout[-6000:]
    began = time.monotonic()
    again = run(demo, who, home, python, timeout=300)
    took = time.monotonic() - began

    assert again.returncode == 0, again.stdout[-6000:]
    assert took < DEMO_SECONDS
    print(f"{who.pw_name}: the demo took {took:.1f} s once installed")


@pytest.mark.parametrize("stranger", ["plain user"], indirect=True)
def test_the_tests_of_what_differs_by_user_pass_for_a_stranger(stranger, python):
    who, home = stranger
    _, test = commands()

    tests = run(f"{test} {OF_THE_USER}", who, home, python, timeout=1200)

    assert tests.returncode == 0, tests.stdout[-6000:]
    assert " passed" in tests.stdout
    print(f"{who.pw_name}: {tests.stdout.splitlines()[-1]}")
