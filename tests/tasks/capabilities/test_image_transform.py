"""`image.transform`: what it makes of good images, and that bad ones end as bad input."""

import hashlib
import subprocess
import sys
import zlib
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from PIL import Image, ImageChops, PngImagePlugin

from tasks import runner
from tasks.capabilities import CapabilityError
from tasks.capabilities.image import headers, pixels, plan
from tasks.exceptions import Invalid
from tests import builders
from tests.receiver import RawServer, Receiver, Reply
from tests.tasks.capabilities.pictures import chunk, inline, opened, picture, png_of, saved
from tests.tasks.capabilities.spoken import Listener, bound, run

PHOTO = saved(picture(40, 30), "JPEG", quality=95)
FORMATS = ["png", "jpeg", "webp"]


def transform(content, *operations, **more):
    """The result, the image it made, and that both agree with the quote."""
    input = {"image": inline(content), "operations": list(operations), **more}
    result = run("image.transform", **input)
    (file,) = result.artifacts
    image = opened(file.content)
    assert (result.output["width"], result.output["height"]) == image.size
    assert result.output["sha256"] == hashlib.sha256(file.content).hexdigest()
    assert result.usage == {"image_count": 1, "image_pixels": image.width * image.height}
    assert result.usage["image_pixels"] <= bound("image.transform", **input)["image_pixels"]
    return result, image


def alike(one, other, within=3):
    """Whether two pictures look the same: their mean difference a channel."""
    assert one.size == other.size
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB")).resize((1, 1), Image.Resampling.BOX)
    return max(difference.getpixel((0, 0))) <= within


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("given_", FORMATS)
def test_every_format_becomes_every_other(given_, wanted):
    result, image = transform(saved(kind=given_), format=wanted)

    assert (image.format.lower(), result.output["format"]) == (wanted, wanted)
    assert result.artifacts[0].content_type == f"image/{wanted}"
    assert alike(image, picture(), within=12)


@pytest.mark.parametrize(("given_", "name"), [("png", "image.png"), ("jpeg", "image.jpg"), ("webp", "image.webp")])
def test_an_image_stays_what_it_is_unless_told(given_, name):
    result, _ = transform(saved(kind=given_))

    assert (result.output["format"], result.output["name"]) == (given_, name)


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,", "DATA:;base64,", "data:image/webp;base64,"])
def test_base_64_bare_or_in_a_data_url(prefix):
    assert run("image.transform", image=prefix + inline(saved())).output["format"] == "png"


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ({"op": "resize", "width": 20}, (20, 15)),
        ({"op": "resize", "height": 60}, (80, 60)),
        ({"op": "resize", "width": 20, "height": 20}, (20, 15)),
        ({"op": "resize", "width": 20, "height": 20, "fit": "contain"}, (20, 15)),
        ({"op": "resize", "width": 20, "height": 20, "fit": "cover"}, (20, 20)),
        ({"op": "resize", "width": 20, "height": 20, "fit": "fill"}, (20, 20)),
        ({"op": "resize", "width": 1}, (1, 1)),
        ({"op": "crop", "left": 5, "top": 6, "width": 10, "height": 11}, (10, 11)),
        ({"op": "crop", "width": 40, "height": 30}, (40, 30)),
        ({"op": "rotate", "degrees": 90}, (30, 40)),
        ({"op": "rotate", "degrees": 180}, (40, 30)),
        ({"op": "flip", "direction": "vertical"}, (40, 30)),
        ({"op": "grayscale"}, (40, 30)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_the_size_after_each_operation(operation, size, mode):
    _, image = transform(saved(picture(mode=mode)), operation)

    assert image.size == size


def test_the_pixels_go_where_they_should():
    whole = picture(40, 30)

    def made(*operations):
        return transform(saved(whole), *operations)[1]

    part = {"op": "crop", "left": 5, "top": 6, "width": 10, "height": 11}
    assert list(made(part).tobytes()) == list(whole.crop((5, 6, 15, 17)).tobytes())
    assert made({"op": "rotate", "degrees": 90}).getpixel((29, 0)) == whole.getpixel((0, 0))
    assert made({"op": "rotate", "degrees": 270}).getpixel((0, 39)) == whole.getpixel((0, 0))
    assert made({"op": "flip", "direction": "horizontal"}).getpixel((39, 0)) == whole.getpixel((0, 0))
    assert made({"op": "flip", "direction": "vertical"}).getpixel((0, 29)) == whole.getpixel((0, 0))
    assert made({"op": "grayscale"}).tobytes() == whole.convert("L").tobytes()
    assert alike(made({"op": "resize", "width": 30, "height": 30, "fit": "cover"}), whole.crop((5, 0, 35, 30)))
    four = [{"op": "rotate", "degrees": 90}] * 4
    assert made(*four).tobytes() == whole.tobytes()


def test_a_side_that_would_vanish_stays_one_pixel_and_a_cover_of_a_strip_takes_no_more_room():
    strip = saved(picture(2000, 2))

    assert transform(strip, {"op": "resize", "width": 100})[1].size == (100, 1)
    assert transform(strip, {"op": "resize", "width": 2000, "height": 2000, "fit": "cover"})[1].size == (2000, 2000)


BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright_and_is_quoted_for_either_way(orientation):
    upright = picture(40, 20)
    turned = upright
    for turn in pixels.UPRIGHT.get(orientation, []):
        back = {
            Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
            Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
        }
        turned = turned.transpose(back.get(turn, turn))
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation

    result, image = transform(saved(turned, exif=exif), {"op": "resize", "width": 20})

    assert alike(image, upright.resize((20, 10), Image.Resampling.LANCZOS))
    assert result.usage["image_pixels"] == 200


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_but_pixels_comes_out(kind):
    exif = Image.Exif()
    exif[0x010E], exif[0x8825] = "secret place", {1: "N"}
    noted = PngImagePlugin.PngInfo()
    noted.add_text("Comment", "secret")
    given_ = {
        "png": saved(exif=exif, icc_profile=b"secret" * 50, pnginfo=noted, dpi=(72, 72)),
        "jpeg": saved(kind="JPEG", exif=exif, icc_profile=b"secret" * 50, comment=b"secret", xmp=b"<x>secret</x>"),
        "webp": saved(kind="WEBP", exif=exif, icc_profile=b"secret" * 50, xmp=b"<x>secret</x>"),
    }[kind]
    assert b"secret" in given_ or b"Comment" in given_

    result, image = transform(given_)

    assert b"secret" not in result.artifacts[0].content
    assert not {"exif", "icc_profile", "xmp", "comment", "Comment"} & set(image.info)
    assert not image.getexif()


def test_the_same_file_makes_the_same_file():
    for kind in FORMATS:
        work = (PHOTO, {"op": "resize", "width": 33}, {"op": "grayscale"})
        assert transform(*work, format=kind)[0].artifacts == transform(*work, format=kind)[0].artifacts


def test_quality_counts():
    sizes = [transform(PHOTO, format="webp", quality=quality)[0].output["bytes"] for quality in (5, 95)]

    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))])
def test_what_can_be_seen_through_is_white_in_a_jpeg_and_stays_so_elsewhere(mode, colour):
    clear = saved(Image.new(mode, (8, 8), colour))

    assert transform(clear, format="jpeg")[1].convert("RGB").getpixel((3, 3)) == (255, 255, 255)
    assert transform(clear, {"op": "grayscale"}, format="webp")[1].getchannel("A").getextrema() == (0, 0)


def test_a_palette_with_a_clear_colour_keeps_it():
    palette = picture(mode="RGB").quantize(8)
    clear = saved(palette, transparency=palette.getpixel((0, 0)))

    assert transform(clear)[1].convert("RGBA").getpixel((0, 0))[3] == 0


def test_sixteen_bits_become_eight():
    deep = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 32768, 65535)):
        deep.putpixel((x, 0), value)

    assert list(transform(saved(deep))[1].tobytes()) == [0, 128, 255]


def test_a_jpeg_for_printers():
    assert alike(transform(saved(picture(mode="CMYK"), "JPEG", quality=95))[1], picture(), within=12)


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_the_first_picture_of_an_animation(kind):
    frames = [picture(seed=n) for n in range(3)]

    result, image = transform(saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50))

    assert alike(image, frames[0], within=12)
    assert [warning["code"] for warning in result.warnings] == ["first_picture_only"]


def bad(content):
    """How a file that passed the door is refused by the work."""
    with pytest.raises((CapabilityError, Invalid)) as refused:
        run("image.transform", image=inline(content), operations=[{"op": "resize", "width": 10}])
    return refused.value


def with_bytes(content, at, new):
    return content[:at] + new + content[at + len(new) :]


def with_scans(more):
    """A progressive photograph, and its last scan so many times more."""
    photo = saved(kind="JPEG", progressive=True)
    last = photo[photo.rindex(b"\xff\xda") : -2]
    return photo[:-2] + last * more + photo[-2:]


HUGE = b"\x00\x00\x13\x88\x00\x00\x13\x88\x08\x02\x00\x00\x00"
ROWS = zlib.compress(b"\x00" * (100 * 301))
HOSTILE = {
    "no image": b"x" * 1000,
    "a zip": b"PK\x03\x04" + b"\x00" * 1000,
    "a program": b"\x7fELF" + b"\x00" * 1000,
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
    "a GIF": saved(kind="GIF"),
    "a TIFF": saved(kind="TIFF"),
    "a BMP": saved(kind="BMP"),
    "a bomb": png_of(50_000, 50_000),
    "a bomb of one row": png_of(2**31 - 1, 1),
    "a bomb beyond all numbers": png_of(2**32 - 1, 2**32 - 1),
    "no pixels": png_of(0, 10),
    "a JPEG bomb": with_bytes(PHOTO, PHOTO.index(b"\xff\xc0") + 5, b"\xff\xff\xff\xff"),
    "a PNG of nonsense": png_of(100, 100, body=b"nonsense" * 100),
    "a PNG without rows": png_of(100, 100, body=zlib.compress(b"")),
    "a PNG of an unknown kind": png_of(10, 10, depth=7, colour=9),
    "a PNG of two headers": png_of(
        10, 10, before=chunk(b"IHDR", b"\x00\x00\x13\x88\x00\x00\x13\x88\x08\x02\x00\x00\x00")
    ),
    "a PNG with a wrong sum": with_bytes(saved(), 20, b"\x00\x00\x00\x09"),
    "a PNG with a profile that unpacks for ever": png_of(
        100, 100, body=b"x", before=chunk(b"iCCP", b"p\x00\x00" + zlib.compress(b"\x00" * 50_000_000))
    ),
    "a PNG with a text that unpacks for ever": png_of(
        100, 100, body=ROWS, before=chunk(b"zTXt", b"t\x00\x00" + zlib.compress(b"\x00" * 50_000_000))
    ),
    "a WebP that is larger inside": with_bytes(
        saved(kind="WEBP", exif=b"Exif\x00\x00"), 24, b"\x07\x00\x00\x07\x00\x00"
    ),
    "a JPEG without pixels": PHOTO[: PHOTO.index(b"\xff\xda")] + b"\xff\xd9",
    "a JPEG of segments without length": b"\xff\xd8\xff\xe0" + b"\x00" * 5000,
    "a JPEG of nothing but markers": b"\xff\xd8" + b"\xff" * 200_000,
    "a JPEG of many scans": with_scans(headers.MOST_SCANS),
    "a JPEG of many segments": PHOTO[:2] + b"\xff\xe5\x00\x02" * 20_000 + PHOTO[2:],
    "a JPEG in arithmetic coding": PHOTO.replace(b"\xff\xc0", b"\xff\xc9", 1),
    "a PNG of many profiles": png_of(
        100, 100, body=ROWS, before=chunk(b"iCCP", b"p\x00\x00" + zlib.compress(b"\x00" * 900_000)) * 2
    ),
    "a PNG of many chunks": png_of(100, 100, body=ROWS, before=chunk(b"teSt", b"") * 20_000),
    "a PNG of many pieces": png_of(100, 100, body=ROWS, before=chunk(b"IDAT", b"") * 20_000),
    "an image and something else behind a wrong start": b"GIF89a" + PHOTO,
}


@pytest.mark.parametrize("which", HOSTILE)
def test_a_hostile_file_is_bad_input(which):
    refused = bad(HOSTILE[which])

    assert getattr(refused, "code", None) in ("invalid_input", "invalid_request")


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_is_bad_input(kind, tenth):
    whole = saved(picture(200, 150), kind)

    bad(whole[: len(whole) * tenth // 10])


def test_a_file_with_something_behind_it_is_the_image_alone():
    for kind in FORMATS:
        result, _ = transform(saved(kind=kind) + b"<script>alert(1)</script>")
        assert b"script" not in result.artifacts[0].content


def test_a_broken_note_of_the_camera_and_rows_that_are_missing_cost_nothing():
    assert transform(saved(exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\x01" * 100))[1].size == (40, 30)
    assert transform(png_of(100, 200, body=ROWS))[1].size == (100, 200)
    profile = chunk(b"iCCP", b"p\x00\x00" + zlib.compress(b"\x00" * 900_000))
    assert transform(png_of(100, 100, body=ROWS, before=profile))[1].size == (100, 100)


@how(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.data())
def test_whatever_is_changed_in_a_file_it_is_an_image_or_bad_input(kind, data):
    content = bytearray(SAMPLES[kind])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))

    decoded_or_refused(bytes(content))


@how(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"", headers.PNG, b"\xff\xd8\xff", b"RIFF____WEBPVP8X", b"RIFF____WEBPVP8 "]),
    st.binary(max_size=300),
)
def test_random_bytes_are_bad_input(start, rest):
    decoded_or_refused(start + rest)


SAMPLES = {kind: saved(picture(24, 18), kind) for kind in FORMATS}


def decoded_or_refused(content):
    try:
        image, _, _ = pixels.decode(content)
    except (headers.Unreadable, plan.TooLarge):
        return
    assert image.mode in ("L", "LA", "RGB", "RGBA")
    assert headers.read(content).width in image.size


def test_the_size_is_looked_at_before_any_decoder_sees_the_file(monkeypatch):
    monkeypatch.setattr(Image, "open", lambda *_, **__: 1 / 0)

    with pytest.raises(plan.TooLarge):
        pixels.decode(png_of(4001, 4001))


@pytest.mark.parametrize(
    ("operations", "most"),
    [
        ([], plan.MOST_PIXELS),
        ([{"op": "resize", "width": 100}], plan.MOST_PIXELS),
        ([{"op": "resize", "width": 100, "height": 50}], 5000),
        ([{"op": "resize", "width": 100, "height": 50, "fit": "cover"}, {"op": "rotate", "degrees": 90}], 5000),
        ([{"op": "crop", "width": 10, "height": 10}], 100),
        ([{"op": "crop", "width": 10, "height": 10}, {"op": "resize", "width": 100}], plan.MOST_PIXELS),
        ([{"op": "resize", "width": 10_000, "height": 10_000}], plan.MOST_PIXELS),
    ],
)
def test_an_image_that_nobody_has_seen_is_quoted_for_the_most_it_can_become(operations, most):
    quoted = bound("image.transform", image_url="https://example.com/a.png", operations=operations)

    assert quoted == {"image_count": 1, "image_pixels": most}


@how(max_examples=200, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_no_result_is_larger_than_its_quote(width, height, data):
    side = st.integers(1, 500)
    operations = data.draw(
        st.lists(
            st.one_of(
                st.builds(lambda w, h, fit: {"op": "resize", "width": w, "height": h, "fit": fit}, side, side,
                          st.sampled_from(["contain", "cover", "fill"])),
                st.builds(lambda w: {"op": "resize", "width": w, "height": None, "fit": "contain"}, side),
                st.builds(lambda w, h: {"op": "crop", "left": 0, "top": 0, "width": w, "height": h}, side, side),
                st.builds(lambda d: {"op": "rotate", "degrees": d}, st.sampled_from([90, 180, 270])),
            ),
            max_size=5,
        )
    )  # fmt: skip
    size = (width, height)
    try:
        for operation in operations:
            size = plan.after(operation, size)
    except ValueError:
        return

    for known in ((width, height), (height, width), None):
        assert plan.most_pixels(operations, known) >= size[0] * size[1]


def test_what_costs_a_decoder_more_than_it_tells_is_refused_by_no_decoder(monkeypatch):
    costly = ["a JPEG of many scans", "a JPEG of many segments", "a JPEG in arithmetic coding"]
    costly += ["a PNG of many profiles", "a PNG of many chunks", "a PNG of many pieces"]
    monkeypatch.setattr(Image, "open", lambda *_, **__: 1 / 0)

    for which in costly:
        with pytest.raises(headers.Unreadable, match=r"parts|scans|profile|baseline"):
            pixels.decode(HOSTILE[which])


def test_photographs_as_cameras_and_editors_write_them_have_few_enough_scans_and_parts():
    assert transform(saved(picture(mode="CMYK"), "JPEG", progressive=True))[1].size == (40, 30)
    assert transform(with_scans(headers.MOST_SCANS - 12))[1].size == (40, 30)
    behind = b"\xff\xda" * 1000 + b"\x00" * 500_000
    for kind in FORMATS:
        assert transform(saved(kind=kind) + behind)[1].size == (40, 30)


def test_a_result_that_is_larger_than_an_artifact_may_be_says_what_to_do(settings):
    settings.ARTIFACT_BYTES = 1000

    with pytest.raises(CapabilityError, match=r"a PNG file of .* at most 1000: choose a smaller size") as refused:
        transform(saved(), {"op": "resize", "width": 400})

    assert refused.value.code == "invalid_input"
    assert transform(saved(), {"op": "resize", "width": 400}, format="webp", quality=1)[1].size == (400, 300)


def test_a_webp_that_can_be_seen_through_has_fewer_pixels():
    clear, solid = picture(8, 8, mode="RGBA"), picture(8, 8, mode="RGBA")
    clear.putalpha(254)
    large = {"op": "resize", "width": 16_001, "height": 500, "fit": "fill"}

    with pytest.raises(CapabilityError, match="at most 8000000 pixels, and this one 16001 x 500: PNG and") as refused:
        transform(saved(clear), large, format="webp")

    assert refused.value.code == "invalid_input"
    assert transform(saved(solid), large, format="webp")[1].size == (16_001, 500)


MEMORY = """
import pathlib, random, re, sys
from PIL import Image
from tasks.capabilities.image import pixels

image = Image.frombytes(sys.argv[1], (700, 700), random.Random(1).randbytes(490_000 * len(sys.argv[1])))
for width, height in eval(sys.argv[2]):
    image = pixels.apply({"op": "resize", "width": width, "height": height, "fit": "fill"}, image)
assert len(pixels.encode(image, sys.argv[3], 100)) > 5_000_000
print(int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("mode", "sizes", "kind"),
    [
        ("RGB", [(4000, 4000)], "WEBP"),
        ("RGBA", [(976, 16_383), (16_383, 976)], "JPEG"),
    ],
)
def test_the_worst_images_take_no_more_memory_than_is_said(mode, sizes, kind):
    megabytes = subprocess.check_output([sys.executable, "-c", MEMORY, mode, repr(sizes), kind], text=True)

    assert 150 < int(megabytes) <= 520


def test_a_crop_beyond_the_image_is_bad_input():
    with pytest.raises(CapabilityError, match="beyond the image, which is 40 x 30") as refused:
        transform(saved(), {"op": "crop", "left": 31, "width": 10, "height": 10})

    assert refused.value.code == "invalid_input"


def test_an_image_that_would_become_too_large_is_bad_input():
    with pytest.raises(CapabilityError, match="at most 16000000 pixels"):
        transform(saved(), {"op": "resize", "width": 16_383})


def fetched(answer, **more):
    with Receiver([answer]) as server:
        return run("image.transform", image_url=server.url, **more)


def test_an_image_is_fetched_from_its_url():
    assert fetched(Reply(200, {"content-type": "text/html"}, PHOTO)).output["format"] == "jpeg"


@pytest.mark.parametrize(
    ("answer", "code", "retryable"),
    [
        (Reply(404), "invalid_input", False),
        (Reply(302, {"location": "http://127.0.0.1/"}), "invalid_input", False),
        (Reply(200, body=b"<html>"), "invalid_input", False),
        (Reply(200, body=b""), "invalid_input", False),
        (Reply(200, body=PHOTO[:300]), "invalid_input", False),
        (Reply(200, body=png_of(50_000, 50_000)), "invalid_input", False),
        (Reply(200, body=b"x" * 1_000_000, endless=True), "invalid_input", False),
        (Reply(503), "upstream_error", True),
    ],
)
def test_an_answer_that_is_no_image(answer, code, retryable):
    with pytest.raises(CapabilityError) as refused:
        fetched(answer)

    assert (refused.value.code, refused.value.retryable) == (code, retryable)


def test_a_server_that_hangs_up_is_tried_again():
    half = RawServer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", hang=False)
    with half as url, pytest.raises(CapabilityError, match="image_url: The connection was closed") as refused:
        run("image.transform", image_url=url)

    assert (refused.value.code, refused.value.retryable) == ("upstream_error", True)


def test_a_forbidden_address_is_not_called(settings):
    settings.CALLBACK_ALLOWED_NETWORKS = []
    with Receiver() as server, pytest.raises(CapabilityError, match="image_url: The address is not") as refused:
        run("image.transform", image_url=server.url)

    assert (refused.value.code, refused.value.retryable, server.connections) == ("invalid_input", False, 0)


def test_the_stages_are_told():
    listener = Listener()

    run("image.transform", listener, image=inline(PHOTO))

    assert [stage for _, stage in listener.stages] == ["reading", "decoding", "transforming", "encoding"]


@pytest.mark.django_db(transaction=True)
def test_a_task_is_quoted_by_the_header_and_charged_by_the_pixels(settings, tmp_path):
    place = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path)}}
    settings.STORAGES = settings.STORAGES | {"artifacts": place}
    of = builders.account("100")
    to = builders.deployment(
        capability="image.transform", prices=[("image_count", "5"), ("image_pixels", "1", 1000)], timeout=60
    )
    work = {"image": inline(saved(picture(40, 30))), "operations": [{"op": "resize", "width": 20}]}

    task = builders.submit(of, to, input=work)
    assert task.quoted == Decimal("5.5400")  # 20 x 15 as it stands, 20 x 27 should it lie on its side
    assert runner.run_next(task.queue)
    task.refresh_from_db()

    assert (task.status, task.output["width"], task.output["height"]) == ("succeeded", 20, 15)
    assert builders.buckets(of) == {"available": Decimal("94.7"), "held": 0, "charged": Decimal("5.3")}
    (file,) = task.artifacts.all()
    assert (file.name, file.content_type, file.sha256) == ("image.png", "image/png", task.output["sha256"])
    assert opened((tmp_path / file.key).read_bytes()).size == (20, 15)
    builders.assert_sound(of)
