"""The consumers' guide: every command of it is run, and its code verifies a really signed callback."""

import json
import os
import re
import shutil
import subprocess
import time

import pytest

from config.settings import BASE_DIR
from tests.config.running import until
from tests.receiver import Receiver

pytestmark = [pytest.mark.clients, pytest.mark.timeout(200)]

GUIDE = (BASE_DIR / "docs" / "guide.md").read_text()
SHOWN = 'curl() { command curl -w "\\n%{http_code}\\n" "$@"; }\n'


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def bash(block, **names):
    """What each curl of the block answered, and its status."""
    done = subprocess.run(
        ["bash", "-euc", SHOWN + block], env=os.environ | names, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, block + done.stderr
    return re.findall(r"(.*?)\n(\d{3})\n", done.stdout, re.DOTALL)


def task(names):
    """The task as it is."""
    return bash('curl -sS "$URL/v1/tasks/$TASK" -H "Authorization: Bearer $KEY"', **names)[0][0]


def test_every_command_of_the_guide_works(service):
    with Receiver([500, 204]) as receiver:
        names = {"URL": service.url, "KEY": service.key, "TEST_KEY": service.test_key}
        run = 0
        for block in blocks("sh"):
            if "redeliver" in block:
                until(lambda: '"status":"delivered"' in task(names))
            for body, status in bash(block.replace("https://example.com/hooks", receiver.url), **names):
                run += 1
                assert status in ("200", "201", "202"), (block, status, body)
                made = json.loads(body) if body.startswith("{") else {}
                if '/v1/tasks"' in block:
                    names["TASK"] = made["task_id"]
                if "data: " in body:
                    assert body.rstrip().splitlines()[-2].startswith("event: task."), body

    assert run == GUIDE.count("\ncurl ") > 15


@pytest.fixture(scope="module")
def callback(service):
    """A callback as it came: its headers, with lower-case names, and its body."""
    with Receiver() as receiver:
        body = json.dumps({"model": "echo", "input": {"text": "✓"}, "callback": {"url": receiver.url}})
        sent = f"curl -sS $URL/v1/tasks -H 'Authorization: Bearer {service.key}' -H 'Content-Type: application/json' "
        bash(sent + f"-d '{body}'", URL=service.url)
        received = until(lambda: receiver.requests and receiver.requests[0])
    return {name.lower(): value for name, value in received.headers.items()}, received.body


def tampered(headers, body):
    """What must not be trusted, and why."""
    return {
        "another body": (headers, body + b" "),
        "another id": (headers | {"webhook-id": "msg_other"}, body),
        "another time": (headers | {"webhook-timestamp": str(int(time.time()) + 1)}, body),
        "another signature": (headers | {"webhook-signature": "v1,AAAA v2," + "A" * 44}, body),
        "no time": (headers | {"webhook-timestamp": "soon"}, body),
    }


def test_the_guides_python_verifies_a_callback_and_nothing_else(service, callback):
    (code,) = blocks("python")
    names = {}
    exec(code, names)
    headers, body = callback

    two = headers | {"webhook-signature": "v1,AAAA " + headers["webhook-signature"]}
    assert names["verified"](headers, body, service.secret)
    assert names["verified"](two, body, service.secret)
    for why, (others, bytes_) in tampered(headers, body).items():
        assert not names["verified"](others, bytes_, service.secret), why


def test_the_guides_node_verifies_a_callback_and_nothing_else(service, callback):
    assert shutil.which("node"), "The group `clients` needs node 20 or newer, with npm."
    (code,) = blocks("js")
    headers, body = callback
    two = headers | {"webhook-signature": "v1,AAAA " + headers["webhook-signature"]}
    asked = [(headers, body), (two, body), *tampered(headers, body).values()]
    cases = json.dumps([[others, bytes_.decode("latin-1")] for others, bytes_ in asked])
    code += """
const answers = JSON.parse(require("node:fs").readFileSync(0)).map(
  ([headers, body]) => verified(headers, Buffer.from(body, "latin1"), process.env.SECRET));
console.log(JSON.stringify(answers));
"""

    done = subprocess.run(
        ["node", "-e", code], input=cases, env=os.environ | {"SECRET": service.secret}, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, True, *[False] * (len(asked) - 2)]
