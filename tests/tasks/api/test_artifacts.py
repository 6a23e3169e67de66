"""What a task made, as its consumers get it: a link from the key, the file from the link."""

import base64
import hashlib
import time
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
import time_machine
from django.core.files.storage import FileSystemStorage, storages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from tasks import artifacts, runner
from tasks.api.schema import TaskSerializer
from tasks.models import Artifact, Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "".join(f"{n:05}" for n in range(40_000))
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()
ETAG = f'"{SHA256}"'


@pytest.fixture(autouse=True)
def _storage(tmp_path, settings):
    place = {"location": str(tmp_path / "artifacts")}
    settings.STORAGES = settings.STORAGES | {
        "artifacts": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": place}
    }


@pytest.fixture
def consumer():
    return Consumer()


def task_with(consumer, **files):
    """The id of a task that has made these files, as its consumer knows it."""
    made = consumer.create(
        builders.deployment(), input={"files": {f"{name}.txt": text for name, text in files.items()}}
    )
    assert runner.run_next("default")
    return made.json()["task_id"]


def link(consumer, **files):
    task_id = task_with(consumer, **(files or {"a": TEXT}))
    return consumer.get(f"/v1/tasks/{task_id}/artifacts/a.txt")["Location"]


def get(url, method="get", **headers):
    """What somebody without a key gets."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = getattr(Client(raise_request_exception=False), method)(url, headers=sent)
    answer.body = b"".join(answer) if answer.streaming else answer.content
    return answer


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_the_task_shows_its_files_and_each_leads_to_its_bytes(consumer):
    task_id = task_with(consumer, b="é", a=TEXT)

    shown = consumer.get(f"/v1/tasks/{task_id}").json()["artifacts"]
    assert [file["name"] for file in shown] == ["b.txt", "a.txt"]
    assert shown[1] | {"expires_at": None} == {
        "name": "a.txt",
        "content_type": "text/plain; charset=utf-8",
        "size": 200_000,
        "sha256": SHA256,
        "url": f"/v1/tasks/{task_id}/artifacts/a.txt",
        "expires_at": None,
    }
    for file, text in zip(shown, ["é", TEXT], strict=True):
        led = consumer.get(file["url"])
        assert (led.status_code, led["Cache-Control"]) == (302, "no-store")
        assert get(led["Location"]).body == text.encode()


def test_the_databases_json_of_artifacts_is_the_serializers(consumer):
    task_id = task_with(consumer, b="é", a=TEXT)

    shown = consumer.get(f"/v1/tasks/{task_id}").json()

    assert shown["artifacts"] == TaskSerializer(Task.objects.get()).data["artifacts"]


def test_a_file_comes_with_headers_that_let_no_browser_run_it(consumer):
    answer = get(link(consumer))

    assert {name: answer[name] for name in answer.headers if name in HEADERS} == HEADERS
    assert answer["Repr-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(SHA256)).decode()}:"
    assert "Set-Cookie" not in answer


HEADERS = {
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": "200000",
    "Content-Disposition": 'attachment; filename="a.txt"',
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-transform",
    "Accept-Ranges": "bytes",
    "ETag": ETAG,
}


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-9", 0, 9),
        ("bytes=65535-65537", 65535, 65537),
        ("bytes=199999-", 199_999, 199_999),
        ("bytes=199990-999999999999", 199_990, 199_999),
        ("bytes=-5", 199_995, 199_999),
        ("bytes=-999999", 0, 199_999),
    ],
)
def test_a_range_of_the_bytes(consumer, asked, first, last):
    answer = get(link(consumer), Range=asked)

    assert (answer.status_code, answer["Content-Range"]) == (206, f"bytes {first}-{last}/200000")
    assert answer.body == TEXT.encode()[first : last + 1]
    assert int(answer["Content-Length"]) == last - first + 1


@pytest.mark.parametrize("asked", ["bytes=200000-", "bytes=200000-200001", "bytes=-0"])
def test_a_range_that_there_is_not(consumer, asked):
    answer = get(link(consumer), Range=asked)

    assert (answer.status_code, answer["Content-Range"], answer.body) == (416, "bytes */200000", b"")


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=0-1,3-4", "bytes=", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=٣-"]
)
def test_a_range_that_is_none_is_the_whole_file(consumer, asked):
    answer = get(link(consumer), Range=quote(asked, safe="=-,"))

    assert (answer.status_code, len(answer.body)) == (200, 200_000)


@pytest.mark.parametrize(
    ("condition", "status"),
    [(ETAG, 206), ('"other"', 200), (f"W/{ETAG}", 200), ("Sun, 06 Nov 1994 08:49:37 GMT", 200)],
)
def test_a_range_on_condition(consumer, condition, status):
    assert get(link(consumer), Range="bytes=1-2", If_Range=condition).status_code == status


@pytest.mark.parametrize(
    ("seen", "status"), [(ETAG, 304), (f'"x", W/{ETAG}', 304), ("*", 304), ('"x"', 200), ('"*"', 200)]
)
def test_a_file_that_was_seen_is_not_sent_again(consumer, seen, status):
    answer = get(link(consumer), If_None_Match=seen)

    assert (answer.status_code, answer["ETag"]) == (status, ETAG)


def test_an_empty_file(consumer):
    url = link(consumer, a="")

    whole, part = get(url), get(url, Range="bytes=0-")

    assert (whole.status_code, whole["Content-Length"], whole.body) == (200, "0", b"")
    assert (part.status_code, part["Content-Range"]) == (416, "bytes */0")


def test_head_opens_no_file(consumer, monkeypatch):
    task_id = task_with(consumer, a=TEXT)
    url = consumer.call("HEAD", f"/v1/tasks/{task_id}/artifacts/a.txt")["Location"]
    Path(storages["artifacts"].path(Artifact.objects.get().key)).unlink()

    answer = get(url, "head", Range="bytes=0-4")

    assert (answer.status_code, answer["Content-Length"], answer["ETag"]) == (200, "200000", ETAG)


def test_a_client_that_accepts_images_only_is_led_there_too(consumer):
    task_id = task_with(consumer, a="x")

    led = consumer.get(f"/v1/tasks/{task_id}/artifacts/a.txt", Accept="image/png")

    assert (led.status_code, get(led["Location"], Accept="image/png").status_code) == (302, 200)


def test_what_is_not_there_and_what_is_somebody_else_s_are_the_same_404_by_the_same_statement(consumer):
    task_id, other = task_with(consumer, a="x"), Consumer()
    nobody = "task_00000000000000000000000000"
    asked = []
    for who, path in [
        (other, f"{task_id}/artifacts/a.txt"),
        (consumer, f"{task_id}/artifacts/b.txt"),
        (consumer, f"{nobody}/artifacts/a.txt"),
    ]:
        with CaptureQueriesContext(
            connection,
        ) as statements:
            answer = who.get(f"/v1/tasks/{path}")
        asked.append((code(answer), answer.json()["error"]["message"], len(statements)))

    assert asked == [((404, "not_found"), "There is no such artifact.", 1)] * 3


@pytest.mark.parametrize("name", ["..", "%2e%2e", "a%00.txt", "%ff", "a.txt%0d%0aX: y", "x" * 5000, "☃"])
def test_a_name_that_cannot_be_is_not_there(consumer, name):
    task_id = task_with(consumer, a="x")

    assert code(consumer.get(f"/v1/tasks/{task_id}/artifacts/{name}")) == (404, "not_found")


def test_a_link_takes_a_key_that_may_read(consumer):
    task_id = task_with(consumer, a="x")
    path = f"/v1/tasks/{task_id}/artifacts/a.txt"
    writer = Consumer(consumer.account, scopes=["tasks:write"])

    assert code(get(path)) == (401, "unauthorized")
    assert code(writer.get(path)) == (403, "insufficient_scope")


def test_a_link_ends(consumer, settings):
    url = link(consumer)

    with time_machine.travel(time.time() + settings.ARTIFACT_LINK_SECONDS - 5):
        assert get(url).status_code == 200
    with time_machine.travel(time.time() + settings.ARTIFACT_LINK_SECONDS + 5):
        assert code(get(url)) == (410, "gone")


def test_a_link_that_was_changed_leads_nowhere(consumer):
    url = link(consumer)
    head, _, signed = url.rpartition("/")
    value, at, signature = signed.split(":")
    flipped = signature[:5] + ("a" if signature[5] != "a" else "b") + signature[6:]

    for changed in (f"MTIz:{at}:{signature}", f"{value}:{at}:{flipped}", f"{value}:zzz:{signature}", "x", "a:b:c"):
        assert code(get(f"{head}/{changed}")) == (403, "forbidden")


def test_an_artifact_that_expired_is_gone_from_then_on(consumer):
    task_id = task_with(consumer, a="x")
    path = f"/v1/tasks/{task_id}/artifacts/a.txt"
    url, shown = consumer.get(path)["Location"], consumer.get(f"/v1/tasks/{task_id}")
    Artifact.objects.update(expires_at=now() - timedelta(seconds=1))

    for _ in range(2):
        assert code(consumer.get(path)) == (410, "gone")
        assert code(get(url)) == (410, "gone")
        artifacts.delete_expired(10)
    after = consumer.get(f"/v1/tasks/{task_id}")
    assert after["ETag"] == shown["ETag"]
    assert [file["name"] for file in after.json()["artifacts"]] == ["a.txt"]


def test_a_file_that_cannot_be_read_is_no_page_of_django_s(consumer, caplog):
    url = link(consumer)
    Path(storages["artifacts"].path(Artifact.objects.get().key)).unlink()

    answer = get(url)

    assert (code(answer), answer["Retry-After"]) == ((503, "unavailable"), "5")
    assert "cannot be read" in caplog.text


@pytest.mark.parametrize("fails", ["open", "read"])
def test_a_storage_that_fails_in_its_own_way_is_no_page_of_django_s(consumer, caplog, monkeypatch, fails):
    class Throttled(Exception):
        """What the client of a storage raises, by no name that we know."""

    class Lazy(BytesIO):
        def read(self, *_):
            raise Throttled

    url = link(consumer)
    monkeypatch.setattr(FileSystemStorage, "open", lambda *_: Lazy() if fails == "read" else Lazy().read())

    answer = get(url)

    assert (code(answer), answer["Retry-After"]) == ((503, "unavailable"), "5")
    assert "Throttled" in caplog.text


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_a_link_is_for_reading(consumer, method):
    assert code(get(link(consumer), method)) == (405, "method_not_allowed")


def test_a_callback_s_body_shows_the_files(consumer):
    made = consumer.create(
        builders.deployment(), input={"files": {"a.txt": "x"}}, callback={"url": "http://127.0.0.1:9/"}
    ).json()
    runner.run_next("default")

    sent = Task.objects.get().callbacks.get().body

    assert f"/v1/tasks/{made['task_id']}/artifacts/a.txt" in sent


def test_a_file_on_its_way_keeps_a_seat_and_no_connection(consumer, settings):
    settings.WEB_FILES = 4
    url = link(consumer)

    sending = [Client().get(url) for _ in range(2)]
    kept = connection.connection
    refused = Client().get(url)
    of_others = Client().get("/static/admin/css/base.css")
    first = next(iter(sending[0]))
    sending[0].close()
    again = Client().get(url)

    assert kept is None
    assert (refused.status_code, refused["Retry-After"], refused.json()["error"]["code"]) == (503, "5", "unavailable")
    assert (of_others.status_code, again.status_code) == (200, 200)
    assert TEXT.startswith(first.decode())
    for response in (sending[1], of_others, again):
        response.close()
        response.close()
    assert [b"".join(Client().get(url)).decode() for _ in range(5)] == [TEXT] * 5
