"""The house: who may import whom, formatting, types, migrations, deployment checks, pins."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOYED = {
    "DEBUG": "false",
    "PUBLIC_URL": "https://tasks.example.com",
    "TRUSTED_PROXIES": "1",
    "SECRET_KEY": "f0e1d2c3b4a5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f",
    "ALLOWED_HOSTS": "tasks.example.com",
}


@pytest.mark.parametrize(
    "command",
    [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "lint-imports",
        "python manage.py makemigrations --check --dry-run",
        "python manage.py check --fail-level WARNING",
    ],
)
def test_the_house_is_in_order(command):
    program, *arguments = command.split()

    done = subprocess.run([BIN / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=110)

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_deployment_passes_djangos_checks(monkeypatch):
    for name, value in DEPLOYED.items():
        monkeypatch.setenv(name, value)

    done = subprocess.run(
        [BIN / "python", "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def pins() -> list[Requirement]:
    groups = PROJECT["dependency-groups"]["dev"]
    constraints = PROJECT["tool"]["uv"]["constraint-dependencies"]
    return [Requirement(text) for text in [*PROJECT["project"]["dependencies"], *groups, *constraints]]


@pytest.mark.parametrize("pin", pins(), ids=lambda pin: pin.name)
def test_what_is_installed_is_what_is_pinned(pin):
    if pin.marker and not pin.marker.evaluate():
        pytest.fail(f"{pin.name} is not for this platform: the tests need Linux or macOS")

    assert [spec.operator for spec in pin.specifier] == ["=="]
    assert version(pin.name) in pin.specifier


def test_the_whole_closure_is_pinned():
    pinned = {_normal(pin.name) for pin in pins()}
    listed = subprocess.run(
        [BIN / "python", "-c", "import importlib.metadata as m; print(*[d.name for d in m.distributions()])"],
        capture_output=True,
        text=True,
        check=True,
    )

    installed = {_normal(name) for name in listed.stdout.split()} - {"pip", "setuptools", "wheel", "counterfoil"}

    assert installed <= pinned


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_lock_file_is_committed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert not {"uv.lock", "poetry.lock", "package-lock.json"} & {Path(name).name for name in tracked}
