"""TypeScript clients, generated from the committed document, type-checked strictly and run by node."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from config.settings import BASE_DIR

pytestmark = [pytest.mark.clients, pytest.mark.timeout(400)]

SOURCES = Path(__file__).with_name("typescript")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The programs, with what they import generated beside them, compiled."""
    assert shutil.which("npm"), "The group `clients` needs node 20 or newer, with npm."
    folder = tmp_path_factory.mktemp("typescript")
    shutil.copytree(SOURCES, folder, dirs_exist_ok=True)
    document = str(BASE_DIR / "openapi.yaml")
    run(folder, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
    run(folder, "npx", "openapi-typescript", document, "-o", "api.d.ts")
    run(folder, "npx", "openapi-ts", "-i", document, "-o", "hey")
    run(folder, "npx", "tsc")
    return folder / "built"


def run(folder, *words, **environment):
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("program", ["tasks.js", "sdk.js"])
def test_a_typed_consumer_submits_waits_lists_cancels_reruns_and_reads_errors(built, service, program):
    said = run(built, "node", program, COUNTERFOIL_URL=service.url, COUNTERFOIL_KEY=service.key)

    assert said == "done\n"
