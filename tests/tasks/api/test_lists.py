"""Lists: whatever is asked for and whatever arrives meanwhile, every row that was there is shown once, and no other."""

import itertools
import json
from collections import Counter
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import lifecycle
from tasks.identifiers import public_id
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

ODD = ["a]b", "a b", 'qu"ote', "é😀", "a&b=c", "[", "\\", "%41", "‮"]


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def to():
    return builders.deployment("one")


def ids(consumer, **query):
    answer = consumer.get(f"/v1/tasks?{urlencode(query)}")
    assert answer.status_code == 200, answer.content
    return [task["task_id"] for task in answer.json()["data"]]


def pages(consumer, meanwhile, **query):
    """The ids of all pages, with something happening between any two."""
    seen, cursor = [], None
    for _ in range(50):
        page = consumer.get(f"/v1/tasks?{urlencode(query | ({'cursor': cursor} if cursor else {}))}").json()
        seen += [task["task_id"] for task in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] is (cursor is not None)
        if cursor is None:
            return seen
        meanwhile()
    raise AssertionError("the pages have no end")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 9),
    limit=st.integers(1, 5),
    order=st.sampled_from(["asc", "desc"]),
    status=st.sampled_from(["", "queued", "queued,canceled", "canceled"]),
    expand=st.sampled_from(["", "all", "usage,billing"]),
    inserted=st.integers(0, 2),
)
def test_pages_hold_every_task_once_whatever_arrives(to, number, limit, order, status, expand, inserted):
    own, other = Consumer(), Consumer()
    made = [consumer_task(own, to, canceled=place % 3 == 0) for place in range(number)]
    wanted = [task_id for task_id, is_ in made if not status or is_ in status.split(",")]
    chosen = {name: value for name, value in {"status": status, "expand": expand}.items() if value}
    asked = {"limit": limit, "order": order, **chosen}
    budget = itertools.chain([inserted] * 4, itertools.repeat(0))  # an ascending list never ends while tasks arrive

    def meanwhile():
        for _ in range(next(budget)):
            consumer_task(own, to, canceled=False)
            consumer_task(other, to, canceled=False)

    seen = pages(own, meanwhile, **asked)

    assert set(Counter(seen).values()) <= {1}
    known = {task_id for task_id, _ in made}
    assert [task_id for task_id in seen if task_id in known] == (wanted if order == "asc" else wanted[::-1])
    if order == "desc":
        assert set(seen) <= known


def consumer_task(of, to, *, canceled):
    task = builders.submit(of.account, to)
    if canceled:
        lifecycle.cancel(task.pk, by="test")
    return public_id(task.pk), "canceled" if canceled else "queued"


class TestMetadata:
    def test_tasks_are_found_by_the_values_of_their_keys(self, consumer, to):
        made = {
            name: consumer.create(to, metadata=metadata).json()["task_id"]
            for name, metadata in {
                "both": {"order": "7", "shop": "berlin"},
                "one": {"order": "7"},
                "other": {"order": "77", "shop": "berlin"},
                "none": {},
            }.items()
        }

        assert set(ids(consumer, **{"metadata[order]": "7"})) == {made["both"], made["one"]}
        assert ids(consumer, **{"metadata[order]": "7", "metadata[shop]": "berlin"}) == [made["both"]]
        assert ids(consumer, **{"metadata[order]": ""}) == ids(consumer, **{"metadata[huh]": "7"}) == []
        assert ids(consumer, **{"metadata[shop]": "berlin", "status": "canceled"}) == []

    @pytest.mark.parametrize("odd", ODD)
    def test_any_key_and_value_that_can_be_written_can_be_asked_for(self, consumer, to, odd):
        made = consumer.create(to, metadata={odd: odd}).json()["task_id"]
        consumer.create(to, metadata={odd: "else"})

        assert ids(consumer, **{f"metadata[{odd}]": odd}) == [made]

    @pytest.mark.parametrize(
        "query",
        [
            "metadata=7",
            "metadata[]=7",
            "metadata[order=7",
            "metadata[order]x=7",
            f"metadata[{'k' * 101}]=7",
            "metadata[order]=%00",
            "metadata[%00]=7",
            "metadata[order]=7&metadata[order]=8",
        ],
    )
    def test_what_cannot_be_a_key_or_stands_twice_is_refused(self, consumer, query):
        answer = consumer.get(f"/v1/tasks?{query}")

        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")

    def test_a_cursor_belongs_to_its_metadata(self, consumer, to):
        for _ in range(2):
            consumer.create(to, metadata={"order": "7"})
        cursor = consumer.get("/v1/tasks?limit=1&metadata[order]=7").json()["next_cursor"]

        answers = [consumer.get(f"/v1/tasks?{tail}&cursor={cursor}") for tail in ("metadata[order]=7", "", "order=asc")]

        assert [answer.status_code for answer in answers] == [200, 422, 422]
        assert answers[1].json()["error"]["code"] == "invalid_cursor"


def test_times_cut_between_two_tasks_to_the_microsecond(consumer, to):
    made = [consumer.create(to).json() for _ in range(3)]

    def found(**query):
        return [[task["task_id"] for task in made].index(task_id) for task_id in ids(consumer, **query)]

    first, middle, last = (task["created_at"] for task in made)
    assert found(created_after=middle) == [2]
    assert found(created_before=middle) == [0]
    assert found(created_after=first, created_before=last) == [1]
    assert found(created_after="2000-01-01T00:00:00Z", created_before="2199-12-31T23:59:59+00:00") == [2, 1, 0]


@pytest.mark.parametrize("query", ["model=a&model=b", "limit=1&limit=2", "order=asc&order=asc"])
def test_a_parameter_that_stands_twice_is_refused_instead_of_half_heard(consumer, query):
    answer = consumer.get(f"/v1/tasks?{query}")

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "/" + query.partition("=")[0])


def test_a_metadata_filter_is_as_long_as_metadata_may_be(consumer):
    answers = [consumer.get(f"/v1/tasks?metadata[a]={'x' * length}") for length in (500, 501)]

    assert [answer.status_code for answer in answers] == [200, 422]
    assert answers[1].json()["error"]["param"] == "/metadata[a]"


def test_a_cursor_belongs_to_a_filter_that_is_empty(consumer, to):
    for _ in range(2):
        consumer.create(to, metadata={"a": ""})
    cursor = quote(consumer.get("/v1/tasks?metadata[a]=&limit=1").json()["next_cursor"])

    answers = [
        consumer.get(f"/v1/tasks?{tail}limit=1&cursor={cursor}") for tail in ("metadata[a]=&", "", "metadata[b]=&")
    ]

    assert [answer.status_code for answer in answers] == [200, 422, 422]


def test_a_cursor_that_was_touched_is_refused(consumer, to):
    for _ in range(2):
        consumer.create(to)
    cursor = consumer.get("/v1/tasks?limit=1").json()["next_cursor"]

    touched = [cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :] for place in (0, 9, 40)]
    touched += [cursor[:-3], cursor + "x", "", ":", "a:b:c", "é", "x" * 4000]

    for text in touched:
        answer = consumer.get(f"/v1/tasks?limit=1&cursor={quote(text)}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_cursor")


@pytest.mark.parametrize("how", ["queued", "running", "succeeded", "failed", "canceled"])
def test_every_link_of_a_task_leads_somewhere(how):
    task = builders.task_that_is(how)
    owner = Consumer(task.account)
    links = owner.get(f"/v1/tasks/{public_id(task.pk)}").json()["links"]

    answers = {
        name: owner.get(path) if name in ("self", "events") else owner.post(path)
        for name, path in links.items()
        if path is not None
    }

    ended = how not in ("queued", "running")
    assert answers.keys() == {"self", "events", "rerun" if ended else "cancel"}
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "self": 200,
        "events": 200,
        **({"rerun": 202} if ended else {"cancel": 200}),
    }
    assert json.loads(answers["self"].content)["task_id"] == public_id(task.pk)
    assert Task.objects.count() == (2 if ended else 1)
