"""How many threads of this process slow clients may keep: with a body that does not come, a file they do not take."""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from django.conf import settings

from tasks.api.errors import Unavailable

PATIENCE = 0.1  # seconds in which what is there already has been read


class Seats:
    """So many threads, of which nobody has more than half."""

    def __init__(self, most: Callable[[], int], refusal: str) -> None:
        self._most, self._refusal = most, refusal
        self._free = threading.Condition()
        self._of: Counter[Hashable] = Counter()

    @contextmanager
    def taken(self, who: Hashable) -> Iterator[None]:
        """A seat for as long as this lasts. Raises Unavailable when none falls free."""
        self.take(who)
        try:
            yield
        finally:
            self.leave(who)

    def take(self, who: Hashable) -> None:
        """A seat until it is left. Raises Unavailable."""
        with self._free:
            if not self._free.wait_for(lambda: self._has_one_for(who), PATIENCE):
                raise Unavailable(self._refusal)
            self._of[who] += 1

    def leave(self, who: Hashable) -> None:
        with self._free:
            self._of[who] -= 1
            self._of += Counter()  # without those who have none
            self._free.notify_all()

    def _has_one_for(self, who: Hashable) -> bool:
        most = self._most()
        return self._of.total() < most and self._of[who] < max(1, most // 2)


bodies = Seats(lambda: settings.WEB_BODIES, "As many bodies are on their way as this server reads at once. Try again.")
files = Seats(lambda: settings.WEB_FILES, "As many files are on their way as this server sends at once. Try again.")
