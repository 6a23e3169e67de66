import signal
import threading

from django.core.management.base import BaseCommand

from tasks import sweep


class Command(BaseCommand):
    help = "Does what time and crashes leave behind, until it is stopped. Any number may run."

    def handle(self, **options):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        sweep.for_ever(stop.wait)
