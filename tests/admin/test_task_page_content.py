"""What a task was given and made, on its page: readable, whole on request, its images as images, none of it run."""

import base64
import json
import subprocess
from datetime import timedelta
from io import BytesIO

import pytest
from django.core.files.storage import storages
from django.db import connection
from django.template.defaultfilters import filesizeformat
from django.urls import reverse
from django.utils.timezone import now
from PIL import Image

from tasks import artifacts, lifecycle
from tasks.admin.task_page import images, request
from tasks.admin.task_page.images import images_in, raster
from tasks.capabilities import File
from tasks.models import Artifact, Task
from tasks.statuses import Status
from tests.admin.people import page_url, root
from tests.builders import claim, submit, task_that_is
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db

SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'></svg>"
HTML = b"<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _storage(tmp_path, settings):
    place = {"location": str(tmp_path / "artifacts")}
    settings.STORAGES = settings.STORAGES | {
        "artifacts": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": place}
    }


def picture(format_="PNG", size=(8, 6)):
    file = BytesIO()
    Image.new("RGB", size, "teal").save(file, format_)
    return file.getvalue()


def text(content):
    return base64.b64encode(content).decode()


def made(output=None, files=(), **fields):
    """A task that succeeded with this output and these files."""
    task = submit(**fields)
    claimed = claim(task)
    kept = artifacts.check([File(*file) for file in files], folder=f"{task.pk}/1/{claimed.token}")
    artifacts.announce(claimed.token, kept)
    artifacts.store(kept)
    lifecycle.succeed(claimed, output=output, usage={}, warnings=[], files=kept)
    return Task.objects.get(pk=task.pk)


def page(task):
    return root().get(page_url(task)).content.decode()


def file_url(task, name):
    return reverse("admin:tasks_task_content", args=[task.pk, name])


def artifact_url(task, name):
    return reverse("admin:tasks_task_artifact", args=[task.pk, name])


def test_json_is_shown_in_lines_and_a_text_as_it_is():
    tasks, person = [made(output={"a": [1, "ü<b>"]}), made(output="line one\nline <two>")], root()

    shown = [person.get(page_url(task)).content.decode() for task in tasks]

    assert "{\n  &quot;a&quot;: [\n    1,\n    &quot;ü&lt;b&gt;&quot;\n  ]\n}" in shown[0]
    assert ">line one\nline &lt;two&gt;</pre>" in shown[1]


def test_a_long_text_is_folded_and_what_is_too_long_for_a_page_is_in_the_file():
    output, person = {"rows": ["word " * 20] * 10_000}, root()
    task = made(output=output)

    answer = person.get(page_url(task))
    whole = person.get(file_url(task, "output"))

    content = answer.context_data["made"]
    assert (len(content.text), content.folds) == (100_000, True)
    assert f"{content.left_out:,} more characters are not shown" in answer.content.decode()
    assert len(answer.content) < 250_000
    assert json.loads(whole.content) == output


def test_a_file_of_content_is_saved_and_never_run():
    task, person = made(output=HTML.decode()), root()

    answer = person.get(file_url(task, "output"))

    assert answer["Content-Type"] == "application/json; charset=utf-8"
    assert answer["Content-Disposition"] == f'attachment; filename="{task}-output.json"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert "no-store" in answer["Cache-Control"]


@pytest.mark.parametrize("depth", [700, 5000])
def test_what_is_nested_deep_is_shown_or_said_to_be_in_the_file(depth):
    task, person = made(), root()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE tasks_task DISABLE TRIGGER USER")
        cursor.execute("UPDATE tasks_task SET output = %s::json", ["[" * depth + "]" * depth])

    assert person.get(page_url(task)).status_code == 200
    assert person.get(file_url(task, "output")).content.decode() == "[" * depth + "]" * depth


def test_the_text_of_a_stream_is_shown_as_far_as_it_is():
    task, person = submit(), root()
    lifecycle.publish(claim(task), offset=0, text="so far, so <good>", usage={})

    shown = person.get(page_url(task)).content.decode()

    assert "Text so far" in shown
    assert "so far, so &lt;good&gt;" in shown
    assert person.get(file_url(task, "text")).content.decode() == "so far, so <good>"


def test_content_that_was_deleted_is_said_to_be():
    task = made(output="secret words", files=[("a.png", picture(), "image/png")])
    lifecycle.delete_content(task.pk, by="api_key:x")

    person = root()
    shown = person.get(page_url(task)).content.decode()

    assert "It was deleted" in shown
    assert "secret words" not in shown
    assert "--data-raw" not in shown
    assert person.get(file_url(task, "request")).status_code == 404
    assert person.get(artifact_url(task, "a.png")).status_code == 404


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_in_json_are_shown_as_images(format_):
    content = picture(format_)
    kind = f"image/{format_.lower()}"

    seen, images = images_in({"plain": [text(content)], "url": f"data:image/x;base64,{text(content)}", "n": 1})

    assert [(image.place, image.content_type, image.size) for image in images] == [
        ("plain[0]", kind, len(content)), ("url", kind, len(content)),
    ]  # fmt: skip
    assert images[0].url == f"data:{kind};base64,{text(content)}"
    assert text(content) not in json.dumps(seen)


def huge():
    """A picture of a few bytes that would unpack to gigabytes."""
    content = bytearray(picture())
    content[16:24] = (60_000).to_bytes(4) * 2
    return bytes(content)


@pytest.mark.parametrize(
    "value",
    [
        f"data:image/svg+xml;base64,{text(SVG * 3)}",
        f"data:text/html;base64,{text(HTML * 5)}",
        f"data:image/png;base64,{text(SVG * 3)}",
        'data:image/png;base64,"><script>alert(1)</script>' + "A" * 60,
        f"data:image/png;base64,{text(huge())}",
        "iVBORw0KGgo" + "A" * 60,
        "/9j/ is how I begin my letters, and then I go on for a long while about the weather",
    ],
)
def test_what_is_no_image_stays_text(value):
    assert images_in({"a": value}) == ({"a": value}, [])


def test_images_are_on_the_page_and_not_too_many(monkeypatch):
    monkeypatch.setattr(images, "MOST_IMAGES", 2)
    task = made(output=[text(picture())] * 3, input={"output": text(picture("JPEG"))})

    shown = page(task)

    assert shown.count('<img src="data:image/png;base64,') == 2
    assert shown.count('<img src="data:image/jpeg;base64,') == 1


def test_artifacts_are_listed_with_all_that_is_known_of_them():
    task = made(files=[("a.png", picture(), "image/png"), ("b.svg", SVG, "image/svg+xml")])
    artifact = task.artifacts.get(name="a.png")

    shown = page(task)

    for expected in (
        "a.png",
        "image/png",
        artifact.sha256,
        artifact.expires_at.isoformat(),
        filesizeformat(artifact.size),
    ):
        assert expected in shown
    assert shown.count("<img") == 1
    assert f'<img src="{artifact_url(task, "a.png")}?show" alt="a.png" loading="lazy">' in shown
    assert f'href="{artifact_url(task, "b.svg")}"' in shown


def test_an_image_is_shown_under_its_own_type_and_saved_without_one():
    content = picture()
    task, person = made(files=[("a.png", content, "image/png")]), root()

    shown, saved = person.get(artifact_url(task, "a.png"), show=""), person.get(artifact_url(task, "a.png"))

    assert (shown.content, shown["Content-Type"], shown["Content-Disposition"]) == (
        content, "image/png", 'inline; filename="a.png"',
    )  # fmt: skip
    assert (b"".join(saved.streaming_content), saved["Content-Type"], saved["Content-Disposition"]) == (
        content, "application/octet-stream", 'attachment; filename="a.png"',
    )  # fmt: skip
    for answer in (shown, saved):
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (SVG, "image/svg+xml"), (HTML, "text/html"), (HTML, "image/png"), (SVG, "image/png"),
        (picture("GIF"), "image/png"), (picture(), "text/html"), (huge(), "image/png"),
    ],
)  # fmt: skip
def test_what_is_not_the_image_that_it_says_is_saved_and_never_shown(content, kind):
    task, person = made(files=[("a", content, kind)]), root()

    assert person.get(artifact_url(task, "a"), show="").status_code == 404
    saved = person.get(artifact_url(task, "a"))
    assert b"".join(saved.streaming_content) == content
    assert (saved["Content-Type"], saved["Content-Disposition"]) == (
        "application/octet-stream", 'attachment; filename="a"',
    )  # fmt: skip


def test_a_file_is_found_by_its_own_task_while_it_is_kept(settings):
    settings.ARTIFACT_SECONDS = 0
    late, person = made(files=[("a.png", picture(), "image/png")]), root()
    settings.ARTIFACT_SECONDS = 60
    kept, other = made(files=[("a.png", picture(), "image/png")]), submit()

    assert b"".join(person.get(artifact_url(kept, "a.png")).streaming_content) == picture()
    assert person.get(artifact_url(other, "a.png")).status_code == 404
    assert person.get(artifact_url(late, "a.png")).status_code == 404
    assert "no longer given out since" in person.get(page_url(late)).content.decode()
    assert artifact_url(late, "a.png") not in person.get(page_url(late)).content.decode()


def test_a_file_that_the_storage_lost_is_not_found():
    task = made(files=[("a.png", picture(), "image/png")])
    storages["artifacts"].delete(Artifact.objects.get(task=task).key)

    assert root().get(artifact_url(task, "a.png")).status_code == 404


def test_a_picture_is_measured_before_a_browser_unpacks_it():
    assert raster(picture()) == "image/png"
    assert raster(huge()) is None
    assert raster(picture("GIF")[:6] + b"\xff\xff\xff\xff" + b"0" * 50) is None
    assert raster(picture() + b"0" * images.MOST_BYTES) is None


HOSTILE = [
    "it's", '"', "$(touch /tmp/x)", "`id`", "$API_KEY", "!!", "\\", "\n", "\r\n'", "\x7f", "@/etc/passwd", "é漢🙂",
    "-o x", "'; rm -rf /; '", "%s", "*", "\u2028", "'\"'\"'", "<!--", "${IFS}", "\\u0027", "\\'",
]  # fmt: skip
# What a shell makes of a command whose program only says what it was given.
SAYS = 'curl() { printf "%s\\0" "$@"; }; API_KEY=the-key\n'


def given(command):
    ran = subprocess.run(["bash", "-c", SAYS + command], capture_output=True, check=True)
    assert ran.stderr == b""
    return ran.stdout.decode().split("\0")[:-1]


def test_the_command_gives_curl_the_same_request_whatever_is_in_it(settings):
    settings.PUBLIC_URL = "https://tasks.example.com/it's"
    task = submit(
        input={"output": HOSTILE, "".join(HOSTILE): {}}, metadata={"k": "".join(HOSTILE)}, client_reference="'$(id)'"
    )

    told = request.commands(task, content=True)

    header = ["-H", "Authorization: Bearer the-key"]
    *words, body = given(told.again)
    assert words == [
        "-s",
        f"{settings.PUBLIC_URL}/v1/tasks",
        *header,
        "-H",
        "Content-Type: application/json",
        "--data-raw",
    ]
    assert json.loads(body) == {
        "model": task.model, "input": task.input, "metadata": task.metadata, "client_reference": "'$(id)'",
        "timeout": task.timeout, "max_retries": task.max_retries,
    }  # fmt: skip
    assert given(told.read) == ["-s", f"{settings.PUBLIC_URL}/v1/tasks/{task}", *header]
    assert told.again.isascii()


def test_the_request_is_one_that_the_api_accepts():
    consumer = Consumer()
    task = submit(consumer.account, input={"output": HOSTILE}, priority=7, callback_url="https://example.com/")

    answer = consumer.post("/v1/tasks", request.as_text(task).encode())

    assert answer.status_code == 202
    again = Task.objects.exclude(pk=task.pk).get()
    assert (again.input, again.priority, again.callback_url) == (task.input, 7, task.callback_url)


def test_a_long_request_is_a_file_beside_the_command():
    task, person = submit(input={"output": "'" * 100_000}), root()

    shown = person.get(page_url(task)).content.decode()
    file = person.get(file_url(task, "request"))

    assert f"--data-binary @{task}-request.json" in shown
    assert file["Content-Disposition"] == f'attachment; filename="{task}-request.json"'
    assert json.loads(file.content)["input"] == task.input


def test_what_the_creating_api_was_asked_is_shown_where_it_is_kept():
    task = task_that_is(Status.RUNNING)
    Task.objects.filter(pk=task.pk).update(creation_request={"provisionerId": "verbatim-words"})

    assert "verbatim-words" in page(task)


def test_a_link_to_a_file_outlives_no_permission():
    task, person = made(files=[("a.png", picture(), "image/png")]), root()
    assert person.get(artifact_url(task, "a.png"), show="").status_code == 200

    person.user.is_superuser = False
    person.user.save()

    assert person.get(artifact_url(task, "a.png"), show="").status_code == 403
    assert task.artifacts.get().expires_at > now() + timedelta(days=1)
