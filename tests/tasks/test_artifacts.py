"""Files that tasks make: stored before the end, named by the end alone, and deleted by whoever comes last."""

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage, storages
from django.db import IntegrityError, OperationalError, connection, transaction
from django.utils.timezone import now

from tasks import artifacts, lifecycle, runner, sweep
from tasks.capabilities import CapabilityError, File
from tasks.models import Artifact, Run, Task, Upload
from tests.builders import assert_sound, buckets, claim, deployment, refused, submit

pytestmark = pytest.mark.django_db(transaction=True)

AGO = timedelta(seconds=1)
TWO = {"b.txt": "second", "a.txt": "first"}


@pytest.fixture(autouse=True)
def storage(tmp_path, settings):
    """An empty storage, as the one that is installed."""
    place = {"location": str(tmp_path / "artifacts")}
    settings.STORAGES = settings.STORAGES | {
        "artifacts": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": place}
    }
    return storages["artifacts"]


def stored(storage):
    """Every file there is, and its text."""
    root = Path(storage.location)
    return {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}


def run(task):
    assert runner.run_next(task.queue)
    task.refresh_from_db()
    return task


def made(claimed, **texts):
    folder = f"{claimed.task_id}/{claimed.attempt}/{claimed.token}"
    return artifacts.check([File(f"{name}.txt", text.encode()) for name, text in texts.items()], folder=folder)


def held_by(claimed, **texts):
    """A claim's files, announced and stored, as its runner does."""
    files = made(claimed, **texts)
    artifacts.announce(claimed.token, files)
    artifacts.store(files)
    return files


def succeed(claimed, files):
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[], files=files)


def take_away(task):
    """End the lease, as the sweeper does for a worker that is gone; the task can be claimed again at once."""
    Run.objects.filter(task=task, status="running").update(lease_expires_at=now() - AGO)
    assert lifecycle.give_up(task.pk)
    Task.objects.filter(pk=task.pk).update(available_at=now() - AGO)


def test_a_run_s_files_are_artifacts_when_it_succeeds(storage):
    task = run(submit(input={"files": TWO}))

    rows = list(task.artifacts.order_by("pk"))
    assert [(row.name, row.size, row.content_type) for row in rows] == [
        ("b.txt", 6, "text/plain; charset=utf-8"),
        ("a.txt", 5, "text/plain; charset=utf-8"),
    ]
    assert rows[1].sha256 == hashlib.sha256(b"first").hexdigest()
    assert rows[0].expires_at - rows[0].created_at == timedelta(days=7)
    assert stored(storage) == {rows[0].key: "second", rows[1].key: "first"}
    assert rows[0].key.startswith(f"{task.pk}/1/")
    assert not Upload.objects.exists()


@pytest.mark.parametrize("content", ["bytes", "path", "file"])
def test_content_comes_as_bytes_a_path_or_a_file(storage, tmp_path, content):
    (tmp_path / "given").write_bytes(b"x" * 3_000_000)
    task = submit()
    claimed = claim(task)

    with (tmp_path / "given").open("rb") as opened:
        opened.read(5)
        given = {"bytes": b"x" * 3_000_000, "path": tmp_path / "given", "file": opened}[content]
        files = artifacts.check([File("a", given)], folder=f"{task.pk}/1/{claimed.token}")
        artifacts.announce(claimed.token, files)
        artifacts.store(files)

    assert list(stored(storage).values()) == ["x" * 3_000_000]
    assert (files[0].size, files[0].sha256) == (3_000_000, hashlib.sha256(b"x" * 3_000_000).hexdigest())


def test_the_limit_counts_all_files_of_a_task(settings):
    settings.ARTIFACT_BYTES = 10

    assert len(artifacts.check([File("a", b"12345"), File("b", b"67890")], folder="f")) == 2
    with pytest.raises(CapabilityError, match="exceed 10 bytes"):
        artifacts.check([File("a", b"12345"), File("b", b"678901")], folder="f")


def test_a_task_that_fails_has_no_files(storage):
    task = run(submit(input={"files": TWO, "how": "crash"}))

    assert (task.status, task.artifacts.count(), stored(storage)) == ("failed", 0, {})


@pytest.mark.parametrize("cause", ["cancel", "another worker"])
def test_who_comes_too_late_deletes_his_own_files(storage, monkeypatch, cause):
    task, real = submit(input={"files": TWO}), artifacts.store

    def store_and_lose(files):
        real(files)
        lifecycle.cancel(task.pk, by="test") if cause == "cancel" else take_away(task)

    monkeypatch.setattr(artifacts, "store", store_and_lose)
    assert runner.run_next(task.queue)

    assert (stored(storage), Artifact.objects.count(), Upload.objects.count()) == ({}, 0, 0)


def test_a_lost_worker_s_files_never_replace_the_winner_s(storage):
    task = submit()
    lost = claim(task)
    late = held_by(lost, a="the lost one's")
    take_away(task)
    winner = claim(task)
    good = held_by(winner, a="the winner's")

    with pytest.raises(lifecycle.LeaseLost):
        succeed(lost, late)
    succeed(winner, good)
    with pytest.raises(lifecycle.LeaseLost):
        succeed(lost, late)
    artifacts.discard(lost.token)

    assert stored(storage) == {good[0].key: "the winner's"}
    assert task.artifacts.get().key == good[0].key
    assert artifacts.discard(winner.token) is False
    assert_sound(task.account)


def test_a_lost_worker_stores_nothing(storage):
    task = submit()
    lost = claim(task)
    take_away(task)

    with pytest.raises(lifecycle.LeaseLost):
        held_by(lost, a="too late")

    assert stored(storage) == {}


def test_a_resolution_that_was_accepted_unheard_keeps_its_files(storage, monkeypatch):
    """The answer to the commit is lost; said again, it is refused: the files of this very token are the winner's."""
    task, real, said = submit(input={"files": TWO}), lifecycle.succeed, []

    def succeed_unheard(*args, **kwargs):
        said.append(True)
        real(*args, **kwargs)
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(runner.time, "sleep", lambda _: None)

    monkeypatch.setattr(lifecycle, "succeed", succeed_unheard)
    task = run(task)

    assert (len(said), task.status, task.attempt) == (2, "succeeded", 1)
    assert sorted(stored(storage).values()) == ["first", "second"]
    assert task.artifacts.count() == 2


def test_an_outage_before_and_after_storing_costs_nothing(storage, monkeypatch):
    away = {"announce": 2, "succeed": 2}

    def with_outage(module, name):
        real = getattr(module, name)

        def say(*args, **kwargs):
            if away[name]:
                away[name] -= 1
                raise OperationalError("away")
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, say)

    monkeypatch.setattr(runner.time, "sleep", lambda _: None)
    with_outage(artifacts, "announce")
    with_outage(lifecycle, "succeed")
    task = run(submit(input={"files": TWO}))

    assert (task.status, task.attempt, task.artifacts.count(), len(stored(storage))) == ("succeeded", 1, 2, 2)
    assert away == {"announce": 0, "succeed": 0}


def test_a_storage_that_fails_is_tried_again(storage, monkeypatch, settings):
    settings.RETRY_BACKOFF_SECONDS = 0
    save, asked = FileSystemStorage._save, []

    def fail_in_the_middle(self, name, content):
        asked.append(name)
        if len(asked) == 2:
            raise OSError(28, "No space left on device")
        return save(self, name, content)

    monkeypatch.setattr(FileSystemStorage, "_save", fail_in_the_middle)
    task = run(submit(input={"files": TWO}))

    assert (task.status, task.attempt, stored(storage)) == ("queued", 2, {})
    assert task.runs.get(number=1).reason_resolved == "resource_unavailable"
    assert run(task).status == "succeeded"
    assert len(stored(storage)) == 2


def test_a_storage_that_fails_for_good_fails_the_task_for_nothing(storage, monkeypatch):
    monkeypatch.setattr(FileSystemStorage, "_save", lambda *_: 1 / 0)

    task = run(submit(to=deployment(max_retries=0), input={"files": TWO}))

    assert (task.status, task.error["code"]) == ("failed", "internal_error")
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert not Upload.objects.exists()


def test_files_of_a_result_that_the_database_refuses_are_deleted(storage, monkeypatch):
    def refuse(*_):
        raise IntegrityError("refused")

    monkeypatch.setattr(artifacts, "record", refuse)
    task = run(submit(input={"files": TWO}))

    assert (task.status, task.error["code"], stored(storage)) == ("failed", "internal_error", {})


def test_artifacts_come_with_the_end_of_their_run_and_never_change():
    task = run(submit(input={"files": TWO}))
    row = task.artifacts.first()

    with refused("CF001", "an_artifact_comes_with_the_end"):
        Artifact.objects.create(task=task, run=row.run, name="c", content_type="a/b", size=1, expires_at=now())
    for column in ("name", "key", "sha256", "size"):
        with refused("CF001", "an_artifact_never_changes"):
            Artifact.objects.filter(pk=row.pk).update(**{column: getattr(row, column)})
    with pytest.raises(IntegrityError, match="only_an_expired"), transaction.atomic():
        Artifact.objects.filter(pk=row.pk).update(deleted_at=now())


def expire(task):
    task.artifacts.update(expires_at=now() - AGO)


def test_expired_files_are_deleted_and_their_rows_stay(storage):
    old, young = run(submit(input={"files": TWO})), run(submit(input={"files": {"c.txt": "young"}}))
    expire(old)

    assert (artifacts.delete_expired(10), artifacts.delete_expired(10)) == (2, 0)

    assert list(stored(storage).values()) == ["young"]
    assert all(old.artifacts.values_list("deleted_at", flat=True))
    assert young.artifacts.get().deleted_at is None
    assert [folder.name for folder in Path(storage.location).iterdir()] == [str(young.pk)]


def test_deletion_goes_on_in_batches_and_past_a_file_that_cannot_be_deleted(storage, monkeypatch, caplog):
    tasks = [run(submit(input={"files": {"a.txt": "x"}})) for _ in range(3)]
    for task in tasks:
        expire(task)
    delete, stuck = FileSystemStorage.delete, tasks[0].artifacts.get().key

    def sometimes(self, name):
        if name == stuck:
            raise PermissionError(13, "Permission denied")
        delete(self, name)

    monkeypatch.setattr(FileSystemStorage, "delete", sometimes)

    assert [artifacts.delete_expired(2) for _ in range(2)] == [1, 1]
    assert list(stored(storage)) == [stuck]
    assert "could not be deleted" in caplog.text


def test_a_deletion_that_died_before_its_mark_is_done_again(storage):
    task = run(submit(input={"files": TWO}))
    expire(task)
    storage.delete(task.artifacts.first().key)

    assert artifacts.delete_expired(10) == 2
    assert stored(storage) == {}


def long_after():
    """Let so much time have passed that no worker of then can be storing."""
    Upload.objects.update(created_at=now() - timedelta(seconds=200))


def test_files_of_a_worker_that_died_before_the_end_are_deleted_and_no_others(storage):
    died, working = submit(), submit()
    held_by(claim(died), a="nobody's")
    take_away(died)
    Task.objects.filter(pk=died.pk).update(available_at=now() + timedelta(hours=1))
    claimed = claim(working)
    kept = held_by(claimed, a="about to be")
    long_after()

    assert (artifacts.delete_abandoned(10), artifacts.delete_abandoned(10)) == (1, 0)
    assert list(stored(storage)) == [kept[0].key]
    succeed(claimed, kept)
    assert artifacts.delete_abandoned(10) == 0
    assert list(stored(storage)) == [kept[0].key]


def test_files_of_a_lost_worker_are_left_as_long_as_it_may_be_storing(storage):
    task = submit()
    held_by(claim(task), a="half")
    take_away(task)

    assert artifacts.delete_abandoned(10) == 0
    assert len(stored(storage)) == 1


def test_a_worker_that_thaws_after_the_sweeper_deletes_what_it_stored_since(storage, monkeypatch):
    task, real = submit(input={"files": TWO}), FileSystemStorage._save

    def freeze(self, name, content):
        if name.endswith("a.txt"):
            take_away(task)
            long_after()
            assert artifacts.delete_abandoned(10) == 1
        return real(self, name, content)

    monkeypatch.setattr(FileSystemStorage, "_save", freeze)
    assert runner.run_next(task.queue)

    assert (stored(storage), Upload.objects.count(), Artifact.objects.count()) == ({}, 0, 0)


def test_the_sweeper_comes_again_for_what_a_worker_stored_after_it_and_did_not_live_to_delete(storage):
    task = submit()
    _, second = held_by(claim(task), a="in time", b="too late")
    take_away(task)
    long_after()

    assert (artifacts.delete_abandoned(10), stored(storage)) == (1, {})
    artifacts.store([second])
    assert (artifacts.delete_abandoned(10), stored(storage)) == (0, {second.key: "too late"})
    Upload.objects.update(emptied_at=now() - timedelta(days=1, seconds=1))

    assert (artifacts.delete_abandoned(10), artifacts.delete_abandoned(10)) == (1, 0)
    assert (stored(storage), Upload.objects.count()) == ({}, 0)


def test_the_sweeper_deletes_both(storage):
    died, old = submit(), submit(input={"files": TWO})
    held_by(claim(died), a="nobody's")
    take_away(died)
    Task.objects.filter(pk=died.pk).update(available_at=now() + timedelta(hours=1))
    expire(run(old))
    long_after()

    sweep._delete_files(lambda _: True)

    assert stored(storage) == {}
    assert connection.connection is None


def test_a_task_without_files_asks_nothing_of_the_storage(monkeypatch):
    monkeypatch.setattr(artifacts, "discard", lambda _: 1 / 0)
    monkeypatch.setattr(artifacts, "announce", lambda *_: 1 / 0)

    assert run(submit()).status == "succeeded"
