"""What a capability says while it runs, and its run without a task."""

from tasks import capabilities
from tasks.submission import clean


class Listener:
    """A context that keeps what is said."""

    attempt, resolved_model, settings = 1, "test-1", {}

    def __init__(self):
        self.stages, self.pieces = [], []

    def progress(self, percent=None, stage=None, message=None):
        self.stages.append((percent, stage))

    def emit(self, text, usage=None):
        self.pieces.append((text, usage))


def bound(name, **input):
    """What the capability says it can use at most."""
    capability = capabilities.get(name)
    return capability.bound(clean(capability, input))


def run(name, listener=None, **input):
    """The capability's result for this input, as a client would give it."""
    capability = capabilities.get(name)
    return capability.run(clean(capability, input), listener or Listener())
