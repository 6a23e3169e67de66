"""What a test can do to a running worker by Celery's remote control."""

from celery.worker.control import control_command


@control_command()
def forget_the_broker(state):
    """The event loop goes on without looking at the broker's sockets again: alive, and deaf."""
    hub = state.consumer.hub
    transport = state.consumer.connection.transport
    hub.on_tick -= {each for each in hub.on_tick if each.__module__ == type(transport).__module__}
    for fd in list(transport.cycle.fds):
        hub.remove(fd)
