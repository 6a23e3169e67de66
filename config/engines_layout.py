"""Where the embedded engines keep what they have, and what they may take for theirs."""

import hashlib
import importlib.util
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SYSTEM_HOME = Path("/var/lib/counterfoil")
SHORT_HOME = Path("/tmp")  # noqa: S108 (the owner of what is inside is checked)
SHORT_AND_PLAIN = re.compile(r"[\w./+-]{1,88}", re.ASCII)


class EngineError(Exception):
    """An engine cannot be had here; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Layout:
    """Where everything lives; `home` is PostgreSQL's part, outside the data folder only when we are root."""

    data: Path
    home: Path
    postgres_sockets: Path
    valkey_socket: Path
    embeds_postgres: bool
    embeds_valkey: bool

    @property
    def cluster(self) -> Path:
        return self.home / "pg"


def layout() -> Layout:
    """The paths of this environment's data folder; nothing is created or started."""
    data = Path(os.path.realpath(Path(os.environ.get("COUNTERFOIL_DATA") or CHECKOUT / ".data").expanduser()))
    home = _home(data)
    return Layout(
        data=data,
        home=home,
        postgres_sockets=_sockets(home),
        valkey_socket=_sockets(data) / "valkey.sock",
        embeds_postgres=not os.environ.get("DATABASE_URL"),
        embeds_valkey=not os.environ.get("REDIS_URL"),
    )


def is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _digest(folder: Path) -> str:
    return hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]


def _home(data: Path) -> Path:
    """PostgreSQL's folder: root's is elsewhere, since PostgreSQL refuses root and others may not enter root's."""
    if not is_root():
        return data
    try:
        return Path((data / "home").read_text().strip())
    except OSError:
        return SYSTEM_HOME / _digest(data)


def _sockets(folder: Path) -> Path:
    """A folder's own place for sockets; a path that is too long or needs quoting gets a short one instead."""
    own = folder / "run"
    if SHORT_AND_PLAIN.fullmatch(str(own)) or not hasattr(os, "geteuid"):
        return own
    return SHORT_HOME / f"counterfoil-{os.geteuid()}-{_digest(folder)}"


def public_folder(path: Path) -> None:
    """A folder of ours that everybody may read."""
    path.mkdir(parents=True, exist_ok=True)
    _refuse_foreign(path, os.geteuid())
    path.chmod(0o755)


def private_folder(path: Path, *, owner: int) -> None:
    """A folder that only its owner may enter; somebody else's of that name is refused."""
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid == os.geteuid() != owner:
        os.chown(path, owner, -1, follow_symlinks=False)
    _refuse_foreign(path, owner)
    path.chmod(0o700)


def _refuse_foreign(path: Path, owner: int) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner:
        raise EngineError(f"{path} is not a folder of uid {owner}: remove it, or choose another COUNTERFOIL_DATA.")


def write_private(path: Path, text: str) -> None:
    """Write the whole text or nothing, readable by its owner only (`mkstemp` files are)."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    with open(handle, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    Path(draft).replace(path)


def wheel(package: str, *, instead: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(f"The package {package} is not installed: install it, or set {instead}.")
    return Path(spec.submodule_search_locations[0]).resolve()
