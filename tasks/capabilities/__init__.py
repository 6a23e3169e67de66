"""What a task can do: the registry, and what a capability is given and gives back.

    @capability("text.analyze", meters=["characters"])
    class TextAnalyze:
        input = TextAnalyzeInput            # a DRF serializer class
        def bound(self, input): ...         # the most it can use: meter -> number
        def run(self, input, context): ...  # -> Result

A capability takes data and gives data. It never sees the task's row, its account or its callback. Another package adds
one by an entry point in the group `counterfoil.capabilities`, a Django app by its module `capabilities`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, BinaryIO, Protocol

from django.utils.module_loading import autodiscover_modules
from rest_framework.serializers import Serializer

from billing.pricing import FLAT, UNITS

Usage = Mapping[str, int | Decimal]


@dataclass(frozen=True)
class File:
    """A file that a run made: bytes, the path of a file, or a binary file that can be sought in.

    The name is 1 to 100 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, and unique within its task.
    """

    name: str
    content: bytes | Path | BinaryIO
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class Result:
    """What a run made: JSON for the output, what it used per meter, warnings (`code`, `message`, `field`) and files."""

    output: Any
    usage: Usage = field(default_factory=dict)
    warnings: Iterable[Mapping[str, str | None]] = ()
    estimated: frozenset[str] = frozenset()
    artifacts: Iterable[File] = ()


class CapabilityError(Exception):
    """A capability's no: the task fails with this code, or is tried again when `retryable` and retries are left."""

    def __init__(self, message: str, *, code: str = "capability_error", retryable: bool = False) -> None:
        super().__init__(message)
        self.code, self.message, self.retryable = code, message, retryable


class Context(Protocol):
    """What a running capability may say."""

    attempt: int
    resolved_model: str
    settings: Mapping[str, Any]

    def progress(self, percent: float | None = None, stage: str | None = None, message: str | None = None) -> None:
        """Show how far the work is; percent 0..100."""

    def emit(self, text: str, usage: Usage | None = None) -> None:
        """Stream a piece of text, with the usage so far."""


class Capability(Protocol):
    name: str
    meters: frozenset[str]
    available: Callable[[], bool]
    input: type[Serializer]
    # What an operator may set its deployments to, where it says so, and an input to try it with.
    settings: type[Serializer] | None
    example: Mapping[str, Any]

    def bound(self, input: dict[str, Any]) -> Usage: ...

    def run(self, input: dict[str, Any], context: Context) -> Result: ...


REGISTRY: dict[str, Capability] = {}
ENTRY_POINTS = "counterfoil.capabilities"


def always() -> bool:
    return True


def capability(name: str, *, meters: Iterable[str], available: Callable[[], bool] = always) -> Callable[[type], type]:
    """Register the class under its name; `meters` are all it may report. The flat price needs no meter.

    While `available` says no, submissions are refused; what was accepted before runs on.
    """
    unknown = set(meters) - UNITS.keys() | {FLAT} & set(meters)
    if unknown:
        raise ValueError(f"{name} names meters that do not exist: {', '.join(sorted(unknown))}")

    def register(cls: type) -> type:
        cls.name, cls.meters, cls.available = name, frozenset(meters), staticmethod(available)  # type: ignore[attr-defined]
        cls.settings, cls.example = getattr(cls, "settings", None), getattr(cls, "example", {})  # type: ignore[attr-defined]
        REGISTRY[name] = cls()
        return cls

    return register


def get(name: str) -> Capability | None:
    """The capability of this name, if it is installed here."""
    return REGISTRY.get(name)


def discover() -> None:
    """Import every capability: the built-in ones, apps' `capabilities` modules and entry points."""
    for module in iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    autodiscover_modules("capabilities")
    for entry_point in entry_points(group=ENTRY_POINTS):
        entry_point.load()
