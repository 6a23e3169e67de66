"""What the capabilities' inputs refuse, each with a pointer to the value."""

import pytest

from tasks.exceptions import Invalid
from tests.tasks.capabilities.spoken import bound

LONGEST = 500_000


@pytest.mark.parametrize(
    ("capability", "input", "param"),
    [
        ("text.analyze", {}, "/input/text"),
        ("text.analyze", {"text": None}, "/input/text"),
        ("text.analyze", {"text": ""}, "/input/text"),
        ("text.analyze", {"text": ["a"]}, "/input/text"),
        ("text.analyze", {"text": 5}, "/input/text"),
        ("text.analyze", {"text": "a", "keywords": "5"}, "/input/keywords"),
        ("text.analyze", {"text": "a", "keywords": True}, "/input/keywords"),
        ("text.analyze", {"text": "a" * (LONGEST + 1)}, "/input/text"),
        ("text.analyze", {"text": "a\x00b"}, "/input/text"),
        ("text.analyze", {"text": "a\ud800b"}, "/input/text"),
        ("text.analyze", {"text": "a", "keywords": -1}, "/input/keywords"),
        ("text.analyze", {"text": "a", "keywords": 51}, "/input/keywords"),
        ("text.analyze", {"text": "a", "keywords": 1.5}, "/input/keywords"),
        ("text.analyze", {"text": "a", "keywords": None}, "/input/keywords"),
        ("text.analyze", {"text": "a", "words": 1}, "/input/words"),
        ("text.analyze", {"text": "a", "~/": 1}, "/input/~0~1"),
        ("test.echo", {"sleep": 1}, "/input/sleep"),
        ("test.echo", {"seconds": -1}, "/input/seconds"),
        ("test.echo", {"seconds": 600.1}, "/input/seconds"),
        ("test.echo", {"seconds": float("nan")}, "/input/seconds"),
        ("test.echo", {"seconds": float("inf")}, "/input/seconds"),
        ("test.echo", {"seconds": "NaN"}, "/input/seconds"),
        ("test.echo", {"seconds": 10**400}, "/input/seconds"),
        ("test.echo", {"seconds": "1"}, "/input/seconds"),
        ("test.echo", {"seconds": True}, "/input/seconds"),
        ("test.echo", {"seconds": None}, "/input/seconds"),
        ("test.echo", {"steps": -1}, "/input/steps"),
        ("test.echo", {"steps": 1001}, "/input/steps"),
        ("test.echo", {"steps": float("inf")}, "/input/steps"),
        ("test.echo", {"text": "é" * 2**15 + "e"}, "/input/text"),
        ("test.echo", {"output": [float("nan")]}, "/input/output"),
        ("test.echo", {"usage": 3}, "/input/usage"),
        ("test.echo", {"usage": {"bananas": 1}}, "/input/usage/bananas"),
        ("test.echo", {"usage": {"task": 1}}, "/input/usage/task"),
        ("test.echo", {"usage": {"characters": -1}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": "-0"}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": "1e3"}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": "NaN"}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": "٣"}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": "1\n"}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": float("nan")}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": float("inf")}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": 10**12}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": 10**5000}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": 0.0000001}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": True}}, "/input/usage/characters"),
        ("test.echo", {"usage": {"characters": None}}, "/input/usage/characters"),
        ("test.echo", {"bound": {"characters": "many"}}, "/input/bound/characters"),
        ("test.echo", {"fail": "sadly"}, "/input/fail"),
    ],
)
def test_an_unacceptable_value_is_pointed_at(capability, input, param):
    with pytest.raises(Invalid) as refused:
        bound(capability, **input)

    assert refused.value.param == param


def test_an_unknown_field_is_said_to_be_unknown():
    with pytest.raises(Invalid, match="not known"):
        bound("text.analyze", text="a", words=1)


@pytest.mark.parametrize(
    ("capability", "input"),
    [
        ("text.analyze", {"text": "a" * LONGEST, "keywords": 50}),
        ("text.analyze", {"text": " ", "keywords": 0}),
        ("test.echo", {}),
        ("test.echo", {"seconds": 600, "steps": 1000, "text": "é" * 2**15}),
        ("test.echo", {"seconds": 0.5, "steps": 0, "output": None, "bound": None, "fail": None}),
        ("test.echo", {"usage": {"audio_seconds": "0.000001", "characters": 999_999_999_999}}),
    ],
)
def test_the_limits_themselves_are_accepted(capability, input):
    assert bound(capability, **input) is not None
