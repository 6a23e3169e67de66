"""Files that tasks make: stored under the run's lease token, then named by rows in the resolving transaction.

    check -> announce -> store -> record, or discard

`announce` writes an `Upload` row before the first byte, so that the files of whoever dies are found without listing the
storage; `record` takes that row away in the transaction that makes them artifacts. As long as it is there, nobody has
been given the files, and nobody can be once the lease is lost: they may be deleted.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

from django.conf import settings
from django.core.files import File as StoredFile
from django.core.files.storage import storages

from billing.statements import one, rows
from tasks.capabilities import CapabilityError, File
from tasks.exceptions import LeaseLost
from tasks.models import Upload

logger = logging.getLogger(__name__)

MOST = 100
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TOKEN = r"[a-z0-9!#$&^_.+-]+"  # noqa: S105 - a token as HTTP has them
CONTENT_TYPE = re.compile(rf"(?=.{{1,100}}$){TOKEN}/{TOKEN}(; ?charset={TOKEN})?")
READ = 2**20

ANNOUNCE = """
INSERT INTO tasks_upload (token, keys) SELECT lease_token, %(keys)s FROM tasks_run WHERE lease_token = %(token)s
ON CONFLICT (token) DO UPDATE SET keys = excluded.keys RETURNING token
"""
RECORD = """
WITH gone AS (DELETE FROM tasks_upload WHERE token = %(token)s)
INSERT INTO tasks_artifact (task_id, run_id, name, content_type, size, sha256, key, created_at, expires_at)
SELECT r.task_id, r.id, f.name, f.content_type, f.size, f.sha256, f.key, now(),
    now() + make_interval(secs => %(seconds)s)
FROM tasks_run r CROSS JOIN unnest(%(names)s::text[], %(types)s::text[], %(sizes)s::bigint[], %(digests)s::text[],
    %(keys)s::text[]) WITH ORDINALITY AS f(name, content_type, size, sha256, key, place)
WHERE r.lease_token = %(token)s ORDER BY f.place RETURNING id
"""
EXPIRED = """
SELECT id, key FROM tasks_artifact WHERE deleted_at IS NULL AND expires_at <= now() ORDER BY expires_at LIMIT %(batch)s
"""
DELETED = "UPDATE tasks_artifact SET deleted_at = now() WHERE id = ANY (%(ids)s) RETURNING id"
ABANDONED = """
SELECT token, emptied_at IS NOT NULL FROM tasks_upload u
WHERE CASE WHEN emptied_at IS NULL THEN created_at < now() - make_interval(secs => %(seconds)s)
      ELSE emptied_at < now() - interval '1 day' END
  AND NOT EXISTS (SELECT FROM tasks_run r WHERE r.lease_token = u.token)
ORDER BY created_at LIMIT %(batch)s
"""
EMPTIED = "UPDATE tasks_upload SET emptied_at = now() WHERE token = %(token)s RETURNING token"


@dataclass(frozen=True)
class Made:
    """A file of a run that is good to be stored: measured, and with its place in the storage."""

    file: File
    size: int
    sha256: str
    key: str


def check(files: Iterable[File], *, folder: str) -> list[Made]:
    """The files, measured. Raises CapabilityError for too many, too large, bad names or types, or no content."""
    made: list[Made] = []
    room = settings.ARTIFACT_BYTES
    for file in files:
        if len(made) == MOST:
            raise CapabilityError(f"The capability made more than {MOST} files.")
        _check_names(file, {other.file.name for other in made})
        size, sha256 = _measure(file, room)
        room -= size
        made.append(Made(file, size, sha256, f"{folder}/{file.name}"))
    return made


def announce(token: UUID, made: Sequence[Made]) -> None:
    """Write down where the files are about to be. Twice is the same as once. Raises LeaseLost."""
    if one(ANNOUNCE, {"token": token, "keys": [file.key for file in made]}) is None:
        raise LeaseLost


def store(made: Sequence[Made]) -> None:
    """Put the files into the storage. Raises what it raises; `discard` then deletes what is there."""
    for file in made:
        with _opened(file.file) as content:
            stored = storages["artifacts"].save(file.key, StoredFile(content, name=file.file.name))
        if stored != file.key:
            storages["artifacts"].delete(stored)
            raise OSError(f"the storage chose another name for {file.key}")


def record(token: UUID, made: Sequence[Made]) -> None:
    """Write the rows, within the transaction that resolves the run."""
    if made:
        columns = {
            "names": [each.file.name for each in made],
            "types": [each.file.content_type for each in made],
            "sizes": [each.size for each in made],
            "digests": [each.sha256 for each in made],
            "keys": [each.key for each in made],
        }
        rows(RECORD, {"token": token, "seconds": settings.ARTIFACT_SECONDS, **columns})


def discard(token: UUID) -> bool:
    """Delete files that no row names and none ever will: the lease is lost. False says that there were none."""
    upload = Upload.objects.filter(token=token).first()
    if upload is None:
        return False
    _delete_files(upload)
    upload.delete()
    return True


def delete_expired(batch: int) -> int:
    """Delete the files of expired artifacts, and mark their rows. Returns how many were.

    The file goes first: an expired one is given out to nobody, and a mark without the deletion would hide it for ever.
    """
    gone = []
    for artifact_id, key in rows(EXPIRED, {"batch": batch}):
        with _logged(key):
            storages["artifacts"].delete(key)
            _delete_folders(key, 3)
            gone.append(artifact_id)
    return len(rows(DELETED, {"ids": gone}))


def delete_abandoned(batch: int) -> int:
    """Delete files that a worker stored and never resolved, once it should store no more. Returns how many uploads.

    A frozen machine, or a storage that takes its time, may still bring one after that: the row stays for a day, and
    what came meanwhile goes with it.
    """
    patience = settings.ARTIFACT_STORE_SECONDS + settings.INTERRUPT_GRACE_SECONDS + settings.LAST_RESORT_SECONDS
    done = 0
    for token, emptied in rows(ABANDONED, {"batch": batch, "seconds": patience}):
        with _logged(str(token)):
            done += discard(token) if emptied else _empty(token)
    return done


def _empty(token: UUID) -> bool:
    """Delete the files of an upload, and remember where they were. False says that its worker came first."""
    upload = Upload.objects.filter(token=token).first()
    if upload is None:
        return False
    _delete_files(upload)
    return one(EMPTIED, {"token": token}) is not None


def _delete_files(upload: Upload) -> None:
    for key in upload.keys:
        storages["artifacts"].delete(key)
    _delete_folders(upload.keys[0], 2)


def _check_names(file: File, taken: set[str]) -> None:
    if not isinstance(file, File):
        raise CapabilityError("The capability gave an artifact that is no File.")
    if not isinstance(file.name, str) or not NAME.fullmatch(file.name):
        raise CapabilityError("The capability gave a file a name that cannot be.")
    if file.name in taken:
        raise CapabilityError(f"The capability made two files of the name {file.name}.")
    if not isinstance(file.content_type, str) or not CONTENT_TYPE.fullmatch(file.content_type):
        raise CapabilityError(f"The capability gave {file.name} a media type that cannot be.")


def _measure(file: File, room: int) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    try:
        with _opened(file) as content:
            while piece := content.read(READ):
                digest.update(piece)
                size += len(piece)
                if size > room:
                    raise CapabilityError(f"The files exceed {settings.ARTIFACT_BYTES} bytes.")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CapabilityError(f"The content of {file.name} cannot be read.") from error
    return size, digest.hexdigest()


@contextmanager
def _opened(file: File) -> Iterator[BinaryIO]:
    """The content, from its beginning; what the capability opened stays open."""
    if isinstance(file.content, bytes):
        yield BytesIO(file.content)
    elif isinstance(file.content, Path):
        with file.content.open("rb") as content:
            yield content
    else:
        file.content.seek(0)
        yield file.content


def _delete_folders(key: str, levels: int) -> None:
    """Let no empty folders stay, where the storage has folders."""
    with suppress(OSError):
        for _ in range(levels):
            key = key.rpartition("/")[0]
            storages["artifacts"].delete(key)


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Whatever is wrong with one file keeps no other from its turn."""
    try:
        yield
    except Exception:
        logger.exception("%s could not be deleted", what)
