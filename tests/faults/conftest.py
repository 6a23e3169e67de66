import pytest
import redis
from django.conf import settings

from tests.faults.processes import Crew, settled


@pytest.fixture(scope="module")
def crew(django_db_setup, django_db_blocker, tmp_path_factory):
    """Processes that live as long as the module's tests, and a broker without messages of others."""
    with django_db_blocker.unblock():
        hired = Crew(tmp_path_factory.mktemp("crew"))
    redis.from_url(settings.REDIS_URL).flushdb()
    yield hired
    hired.dismiss()


@pytest.fixture(autouse=True)
def _in_quiet(transactional_db, crew):
    """A failing test shows what its processes wrote; none of them is at work when the tables are flushed."""
    yield
    print(crew.said())
    settled()


@pytest.fixture
def witness(tmp_path):
    """A file in which each run of the work leaves the id of its process."""
    return Witness(tmp_path / "witness")


class Witness:
    def __init__(self, path):
        self.path = path

    def __str__(self):
        return str(self.path)

    def pids(self):
        return [int(line) for line in self.path.read_text().split()] if self.path.exists() else []
