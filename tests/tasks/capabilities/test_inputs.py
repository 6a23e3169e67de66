"""What the capabilities' inputs refuse, each with a pointer to the value."""

import pytest

from tasks.exceptions import Invalid
from tests.tasks.capabilities.pictures import inline, png_of
from tests.tasks.capabilities.spoken import bound

LONGEST = 500_000
PIXEL = inline(png_of(1, 1))


def operations(*wanted):
    return {"image": PIXEL, "operations": list(wanted)}


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
        ("image.transform", {}, "/input/image"),
        ("image.transform", {"image": PIXEL, "image_url": "https://example.com/"}, "/input/image"),
        ("image.transform", {"image": ""}, "/input/image"),
        ("image.transform", {"image": 5}, "/input/image"),
        ("image.transform", {"image": "!" + PIXEL}, "/input/image"),
        ("image.transform", {"image": PIXEL + "\n"}, "/input/image"),
        ("image.transform", {"image": PIXEL[:-1]}, "/input/image"),
        ("image.transform", {"image": "data:text/html;base64," + PIXEL}, "/input/image"),
        ("image.transform", {"image": "data:image/png," + PIXEL}, "/input/image"),
        ("image.transform", {"image": "R0lGODlhAQABAIAAAAUEBA=="}, "/input/image"),
        ("image.transform", {"image": inline(png_of(50_000, 50_000))}, "/input/image"),
        ("image.transform", {"image": inline(png_of(16_384, 1))}, "/input/image"),
        ("image.transform", {"image_url": "file:///etc/passwd"}, "/input/image_url"),
        ("image.transform", {"image_url": "http://me:secret@example.com/"}, "/input/image_url"),
        ("image.transform", {"image_url": "http://0x7f.1/"}, "/input/image_url"),
        ("image.transform", {"image": PIXEL, "picture": 1}, "/input/picture"),
        ("image.transform", {"image": PIXEL, "format": "gif"}, "/input/format"),
        ("image.transform", {"image": PIXEL, "format": ["png"]}, "/input/format"),
        ("image.transform", {"image": PIXEL, "format": "png", "quality": 5}, "/input/quality"),
        ("image.transform", {"image": PIXEL, "quality": 0}, "/input/quality"),
        ("image.transform", {"image": PIXEL, "quality": 101}, "/input/quality"),
        ("image.transform", {"image": PIXEL, "operations": {}}, "/input/operations"),
        ("image.transform", {"image": PIXEL, "operations": [{"op": "grayscale"}] * 11}, "/input/operations"),
        ("image.transform", operations("resize"), "/input/operations/0"),
        ("image.transform", operations({"width": 5}), "/input/operations/0/op"),
        ("image.transform", operations({"op": "sharpen"}), "/input/operations/0/op"),
        ("image.transform", operations({"op": ["crop"]}), "/input/operations/0/op"),
        ("image.transform", operations({"op": "resize"}), "/input/operations/0/width"),
        ("image.transform", operations({"op": "resize", "width": 0}), "/input/operations/0/width"),
        ("image.transform", operations({"op": "resize", "width": 16_384}), "/input/operations/0/width"),
        ("image.transform", operations({"op": "resize", "width": "5"}), "/input/operations/0/width"),
        ("image.transform", operations({"op": "resize", "width": 5, "fit": "cover"}), "/input/operations/0/fit"),
        ("image.transform", operations({"op": "resize", "width": 5, "fit": "in"}), "/input/operations/0/fit"),
        ("image.transform", operations({"op": "grayscale"}, {"op": "crop", "width": 5}), "/input/operations/1/height"),
        (
            "image.transform",
            operations({"op": "crop", "width": 5, "height": 5, "left": -1}),
            "/input/operations/0/left",
        ),
        ("image.transform", operations({"op": "rotate", "degrees": 45}), "/input/operations/0/degrees"),
        ("image.transform", operations({"op": "rotate", "degrees": 90.0}), "/input/operations/0/degrees"),
        ("image.transform", operations({"op": "rotate"}), "/input/operations/0/degrees"),
        ("image.transform", operations({"op": "flip", "direction": "both"}), "/input/operations/0/direction"),
        ("image.transform", operations({"op": "grayscale", "width": 5}), "/input/operations/0/width"),
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
        ("image.transform", {"image": PIXEL}),
        ("image.transform", {"image": PIXEL, "image_url": None, "operations": [], "format": None, "quality": None}),
        ("image.transform", {"image_url": "https://example.com/a.png", "format": "webp", "quality": 100}),
        ("image.transform", {"image": inline(png_of(4000, 4000))}),
        ("image.transform", operations(*[{"op": "rotate", "degrees": 270}] * 10)),
        ("test.echo", {}),
        ("test.echo", {"seconds": 600, "steps": 1000, "text": "é" * 2**15}),
        ("test.echo", {"seconds": 0.5, "steps": 0, "output": None, "bound": None, "fail": None}),
        ("test.echo", {"usage": {"audio_seconds": "0.000001", "characters": 999_999_999_999}}),
    ],
)
def test_the_limits_themselves_are_accepted(capability, input):
    assert bound(capability, **input) is not None
