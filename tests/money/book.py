"""What should happen to money, in plain integers: 1/10,000 of a credit, 1/1,000,000 of a unit, 10^-10 credits a price.

It knows nothing of the service's own arithmetic or tables, and says of every act whether it is refused, and by what.
"""

from dataclasses import dataclass, field
from uuid import UUID

ORDER = ("task", "input_tokens", "output_tokens", "characters")


def priced(quantity: int, price: int, size: int) -> int:
    """Half to even, once."""
    whole, rest = divmod(quantity * price, 10**12 * size)
    up = 2 * rest > 10**12 * size or (2 * rest == 10**12 * size and whole % 2 == 1)
    return whole + up


@dataclass(frozen=True)
class Tag:
    """A price: of `size` units of a meter."""

    meter: str
    price: int
    size: int


@dataclass
class Line:
    meter: str
    quantity: int
    listed: int
    billed: int
    refunded: int = 0


@dataclass
class Wallet:
    """An account."""

    credit_limit: int = 0
    cap: int | None = None
    pending_limit: int = 1000
    running_limit: int = 10
    granted: int = 0
    available: int = 0
    held: int = 0
    charged: int = 0
    spent: int = 0
    transfers: int = 0
    pending: int = 0
    running: int = 0
    last_month: bool = False

    @property
    def has_room(self) -> bool:
        return self.running < self.running_limit

    def _moved(self) -> None:
        self.transfers += 1
        if self.last_month:
            self.spent, self.last_month = 0, False

    def given(self, amount: int) -> None:
        """A grant or an adjustment."""
        self._moved()
        self.granted += amount
        self.available += amount

    def refuses_adjustment(self, amount: int) -> str | None:
        return "InsufficientBalance" if amount < 0 and self.available + amount < -self.credit_limit else None

    def refuses_hold(self, amount: int) -> str | None:
        """Nothing is held for what costs nothing, so nothing refuses it but the limit of tasks."""
        spent = 0 if self.last_month else self.spent
        if amount and self.available - amount < -self.credit_limit:
            return "InsufficientBalance"
        if amount and self.cap is not None and spent + amount > self.cap:
            return "SpendCapReached"
        return "TooManyPendingTasks" if self.pending + 1 > self.pending_limit else None

    def hold(self, amount: int) -> None:
        self.pending += 1
        if amount:
            self._moved()
            self.available -= amount
            self.held += amount
            self.spent += amount

    def settle(self, charged: int, released: int, *, of_this_month: bool) -> None:
        if charged:
            self._moved()
            self.held -= charged
            self.charged += charged
        if released:
            fresh = of_this_month and not self.last_month
            self._moved()
            self.held -= released
            self.available += released
            self.spent -= released if fresh else 0

    def refunded(self, amount: int) -> None:
        self._moved()
        self.charged -= amount
        self.available += amount


@dataclass
class Job:
    """A task, with the prices it was quoted."""

    id: UUID
    wallet: Wallet
    account: UUID
    offer: str
    bound: dict[str, int]
    tags: tuple[Tag, ...]
    bills_partial: bool
    ceiling: int
    root: UUID
    waived: bool = False
    retries: int = 1
    returns: int = 0
    status: str = "queued"
    attempt: int = 1
    started: bool = False
    held: int = field(init=False)
    charged: int = 0
    refunded: int = 0
    cut: bool = False
    of_this_month: bool = True
    text: str = ""
    streamed: dict[str, int] = field(default_factory=dict)
    output: str | None = None
    lines: list[Line] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = self.ceiling

    @property
    def final(self) -> bool:
        return self.status in ("succeeded", "failed", "canceled")

    def _move(self, to: str) -> None:
        self.wallet.running += (to == "running") - (self.status == "running")
        self.status = to
        self.wallet.pending -= self.final

    def claim(self) -> None:
        self.started = True
        self._move("running")

    def given_back(self) -> None:
        """Tried for nothing, five times in a row."""
        returns = self.returns
        self.tried(spend=0 if returns < 5 else 1)
        self.returns = returns + 1

    def tried(self, spend: int = 1) -> None:
        """Queued once more, or failed and free when no retry is left."""
        if self.retries < spend:
            self.stop("failed", bills=False)
            return
        self.attempt += 1
        self.retries, self.returns = self.retries - spend, 0
        self.text, self.streamed = "", {}
        self._move("queued")

    def stream(self, text: str, usage: dict[str, int]) -> None:
        self.text += text
        self.streamed = usage

    def succeed(self, usage: dict[str, int]) -> None:
        self.lines = listed({**usage, "task": 10**6}, self.tags)
        self.cut = self._bill()
        self.output = "done"
        self._end("succeeded")

    def stop(self, to: str, *, bills: bool) -> None:
        """An end that is free, or bills what was streamed but the flat price."""
        if bills and self.bills_partial and self.streamed:
            self.lines = listed(self.streamed, [tag for tag in self.tags if tag.meter != "task"])
            self.cut = self._bill()
            self.output = self.text if self.lines else None
        self._end(to)

    def _bill(self) -> bool:
        """Bill the lines from the first on, as far as the hold goes; whether something was cut."""
        room = self.held
        for line in self.lines:
            line.billed = min(room, line.listed)
            room -= line.billed
        return not self.waived and any(line.billed < line.listed for line in self.lines)

    def _end(self, to: str) -> None:
        self.charged = sum(line.billed for line in self.lines)
        self.wallet.settle(self.charged, self.held - self.charged, of_this_month=self.of_this_month)
        self.held = 0
        self._move(to)

    def refuses_refund(self, amount: int | None, line: Line | None) -> str | None:
        wanted = self.charged - self.refunded if amount is None else amount
        if not self.ceiling or wanted <= 0:
            return "NothingCharged"
        if wanted > self.charged - self.refunded or (line and wanted > line.billed - line.refunded):
            return "RefundTooLarge"
        return None

    def refund(self, amount: int | None, line: Line | None) -> int:
        given = self.charged - self.refunded if amount is None else amount
        self.wallet.refunded(given)
        self.refunded += given
        if line:
            line.refunded += given
        return given


def listed(quantities: dict[str, int], tags: tuple[Tag, ...] | list[Tag]) -> list[Line]:
    return [
        Line(tag.meter, quantities[tag.meter], cost := priced(quantities[tag.meter], tag.price, tag.size), cost)
        for tag in tags
        if quantities.get(tag.meter)
    ]


def ceiling(bound: dict[str, int], tags: tuple[Tag, ...]) -> int:
    return sum(line.listed for line in listed({**bound, "task": 10**6}, tags))
