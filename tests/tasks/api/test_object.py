"""The task object: beatra's keys and types, and the same from the database as from the serializers."""

import json
import random
from decimal import Decimal
from uuid import uuid4

import pytest

from billing.models import Account, UsageLine
from billing.pricing import METERS
from billing.statements import one
from tasks import lifecycle, runner
from tasks.api.schema import TaskSerializer
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

TEXT, NUMBER, FLAG = str, int, bool
# The object that beatra documents, with its types; every key is always there, and null where a value is not known yet.
BEATRA = {
    "object": TEXT,
    "task_id": TEXT,
    "status": TEXT,
    "capability": TEXT,
    "model": TEXT,
    "resolved_model": TEXT,
    "metadata": {"property1": TEXT, "property2": TEXT},
    "input": {},
    "progress": {"percent": NUMBER, "stage": TEXT, "message": TEXT},
    "output": {},
    "warnings": [{"code": TEXT, "message": TEXT, "field": TEXT}],
    "error": {"code": TEXT, "message": TEXT, "retryable": FLAG},
    "usage": {
        **dict.fromkeys(
            (
                *("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "reasoning_tokens"),
                *("image_count", "image_pixels", "video_seconds", "audio_seconds", "characters"),
            ),
            NUMBER,
        ),
        "lines": [
            {
                "meter": TEXT,
                "quantity": TEXT,
                "unit": TEXT,
                "billed_amount_credits": TEXT,
                "billed_amount_credits_usd_reference": TEXT,
            }
        ],
        "credits": TEXT,
        "credits_usd_reference": TEXT,
    },
    "billing": {
        "charged_credits": TEXT,
        "refunded_credits": TEXT,
        "charged_credits_usd_reference": TEXT,
        "refunded_credits_usd_reference": TEXT,
        "currency": TEXT,
    },
    "callback": {"url": TEXT, "status": TEXT, "attempt_count": NUMBER, "delivered_at": TEXT, "last_error": TEXT},
    "created_at": TEXT,
    "started_at": TEXT,
    "completed_at": TEXT,
    "cancel_requested_at": TEXT,
    "links": {"self": TEXT, "cancel": TEXT},
}
ALWAYS_OBJECTS = ("metadata", "input", "progress", "usage", "billing", "links")


def mismatches(ours, theirs, path=""):
    """Where our value lacks a key of theirs, or has another type."""
    if ours is None:
        return []
    if isinstance(theirs, dict):
        if not isinstance(ours, dict):
            return [f"{path} is no object"]
        wanted = {} if path == "/metadata" else theirs
        return [f"{path}/{key} is missing" for key in wanted if key not in ours] + [
            found for key in wanted if key in ours for found in mismatches(ours[key], theirs[key], f"{path}/{key}")
        ]
    if isinstance(theirs, list):
        return [found for i, item in enumerate(ours) for found in mismatches(item, theirs[0], f"{path}/{i}")]
    return [] if type(ours) is theirs else [f"{path} is {type(ours).__name__}"]


@pytest.mark.parametrize("how", ["queued", "running", "succeeded", "failed", "canceled"])
def test_every_key_of_beatras_object_is_there_in_every_status(how):
    task_id = a_task(how)

    shown = json.loads(text_of(task_id))

    assert shown["status"] == how
    assert mismatches(shown, BEATRA) == []
    assert all(isinstance(shown[key], dict) for key in ALWAYS_OBJECTS)
    assert isinstance(shown["warnings"], list)
    assert isinstance(shown["usage"]["lines"], list)
    assert (shown["error"] is not None) == (how == "failed")


def test_the_comparison_itself_finds_what_is_wrong():
    shown = json.loads(text_of(a_task("succeeded")))

    del shown["usage"]["lines"][0]["unit"]
    shown["seq"], shown["usage"]["credits"] = "1", 1.5

    assert mismatches(shown, BEATRA) == ["/usage/lines/0/unit is missing", "/usage/credits is float"]


def test_a_finished_task_explains_its_charge():
    shown = json.loads(text_of(a_task("succeeded")))

    assert shown["billing"]["charged_credits"] == shown["usage"]["credits"] == "2.4000"
    assert shown["billing"]["charged_credits_usd_reference"] == "0.0024000"
    assert [line["billed_amount_credits"] for line in shown["usage"]["lines"]] == ["1.0000", "1.4000"]
    assert shown["links"]["cancel"] is None


@pytest.mark.parametrize("seed", range(25))
def test_the_databases_json_is_the_serializers(seed):
    task_id = random_task(random.Random(seed))

    built, serialized = json.loads(text_of(task_id)), TaskSerializer(Task.objects.get(pk=task_id)).data

    assert built == json.loads(json.dumps(serialized))
    assert list(built) == list(serialized)


def test_a_summary_is_the_object_without_its_heavy_parts():
    task_id = a_task("succeeded")

    whole = json.loads(text_of(task_id))
    summary = json.loads(one("SELECT task_json(%(id)s, '{}')", {"id": task_id})[0])

    heavy = {"input", "output", "usage", "billing", "callback"}
    assert summary == {key: value for key, value in whole.items() if key not in heavy}


def a_task(how):
    consumer = Consumer()
    to = builders.deployment(prices=(("task", "1"), ("characters", "2", 1000)))
    work = {
        "usage": {"characters": 700},
        "output": {"a": [1, "x", None]},
        "how": "crash" if how == "failed" else "return",
    }
    fields = {"callback_url": "http://127.0.0.1:9/", "metadata": {"property1": "a"}, "input": work}
    task = builders.submit(consumer.account, to, **fields)
    if how == "canceled":
        lifecycle.cancel(task.pk, by="system", reason="enough")
    elif how == "running":
        lifecycle.claim(to.queue, worker="w")
    elif how != "queued":
        runner.run_next(to.queue)
    return task.pk


def random_task(dice: random.Random):
    """A task whose life, money and words were drawn by lot."""
    of = builders.account("1000")
    to = builders.deployment(
        prices=[(meter, f"{dice.uniform(0, 3):.7f}", dice.choice([1, 7, 1000])) for meter in ("task", *METERS)],
        bills_partial_output=dice.random() < 0.5,
        max_retries=2,
    )
    words = ["", "a", 'quo"te', "\\", "é😀", "</script>", "\n\t", "‮"]
    usage = {
        meter: str(round(dice.uniform(0, 9), dice.randint(0, 4))) for meter in dice.sample(METERS, dice.randint(0, 10))
    }
    work = {
        "how": dice.choice(["return", "crash", "refuse", "later"]),
        "usage": usage,
        "bound": dict.fromkeys(METERS, 5),
    }
    if dice.random() < 0.7:
        work["output"] = dice.choice([None, 1.5, "text", [], {}, {"deep": {"er": [dice.choice(words)]}}])
    if work["how"] == "refuse":
        work["output"] = "invalid_input"
    task = builders.submit(
        of,
        to,
        input=work,
        metadata={f"k{word}": word for word in dice.sample(words, 3)},
        client_reference=dice.choice([None, *words]),
        callback_url=dice.choice([None, "https://example.com/hook?a=1"]),
        priority=dice.randint(0, 9),
    )
    step = dice.choice(["leave", "pause", "claim", "run", "run", "run", "cancel"])
    if step == "pause":
        lifecycle.pause(task.pk, by="system")
    if step == "claim":
        claimed = lifecycle.claim(to.queue, worker="w")
        lifecycle.progress(claimed, percent=dice.randint(0, 100), stage=dice.choice(words), message=dice.choice(words))
    if step == "run":
        runner.run_next(to.queue)
    if step == "cancel":
        lifecycle.cancel(task.pk, by="system", reason=dice.choice(words))
    refund_some(task.pk, dice)
    return task.pk


def refund_some(task_id, dice):
    for line in UsageLine.objects.filter(task_id=task_id, billed_amount__gt=0):
        if dice.random() < 0.4:
            part = (line.billed_amount * Decimal(str(round(dice.uniform(0.1, 1), 2)))).quantize(Decimal("0.0001"))
            lifecycle.refund(
                task_id, part or line.billed_amount, line=line, key=str(uuid4()), reason="r", by="operator:x"
            )


def text_of(task_id):
    return one("SELECT task_json(%(id)s)", {"id": task_id})[0]


def test_an_account_without_a_charge_shows_zeros():
    to = builders.deployment(prices=())

    shown = json.loads(text_of(builders.submit(builders.account("0"), to).pk))

    assert shown["billing"]["quoted_credits"] == shown["billing"]["held_credits"] == "0.0000"
    assert Account.objects.filter(account_seq=0).count() == 1
