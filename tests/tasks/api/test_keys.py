"""What a key may do, endpoint by endpoint, and that its secret is told by nothing but the answer that issues it."""

import io
import logging

import pytest
import yaml
from django.conf import settings

from billing.models import SCOPES, ApiKey
from billing.redaction import Formatter
from tasks import lifecycle
from tests.builders import deployment
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)
DOCUMENT = yaml.safe_load((settings.BASE_DIR / "openapi.yaml").read_text())
KEYED = {
    (method.upper(), path): [need["bearer"][0] for need in shown["security"]]
    for path, methods in DOCUMENT["paths"].items()
    for method, shown in methods.items()
    if shown["security"]
}
WHERE = {"task_id": "task_01m806yepge72v4969hdkw0ka7", "endpoint_id": "endpoint_01m806yepge72v4969hdkw0ka7"}
WHERE |= {"name": "a.txt", "deployment": "work"}


def asked(method, path, **key):
    return Consumer(**key).call(method, path.format(**WHERE), {} if method == "POST" else None).status_code


def test_every_operation_names_scopes_that_there_are():
    assert len(KEYED) > 18
    assert all(scopes and set(scopes) <= set(SCOPES) for scopes in KEYED.values())


@pytest.mark.parametrize(("method", "path"), KEYED)
def test_each_endpoint_takes_each_of_its_scopes_and_no_other(method, path):
    enough = KEYED[method, path]

    assert asked(method, path, scopes=[scope for scope in SCOPES if scope not in enough]) == 403
    assert 403 not in [asked(method, path, scopes=[scope]) for scope in enough]


@pytest.fixture
def logged():
    """Everything that is logged, as it is written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(next(h.formatter for h in logging.getLogger().handlers if isinstance(h.formatter, Formatter)))
    handler.setLevel(logging.DEBUG)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream.getvalue
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_key_is_in_no_log_no_error_and_no_row(logged, monkeypatch):
    consumer, to = Consumer(), deployment()
    secret, tail = consumer.secret, consumer.secret.rpartition("_")[2]

    def crash(*_, **__):
        raise RuntimeError(f"it said Bearer {secret}")

    answers = [
        consumer.create(to, **{secret: 1}),
        consumer.create(to, metadata={secret: 1}),
        consumer.post("/v1/tasks", {"model": secret, "input": {}}),
        consumer.get(f"/v1/tasks/{secret}"),
        consumer.get(f"/v1/tasks?key={secret}"),
        consumer.get(f"/v1/tasks?key={secret.replace('_', '%5F')}"),
        consumer.get("/v1/tasks", Authorization=secret),
        consumer.get("/v1/tasks", Authorization=f"Bearer {secret}x"),
        consumer.get(f"/v1/{secret}"),
    ]
    monkeypatch.setattr(lifecycle, "submit", crash)
    answers.append(consumer.create(to))

    logging.getLogger("tasks").warning("sent %s", secret, extra={"authorization": f"Bearer {secret}"})
    said = [answer.content.decode() for answer in answers] + [repr(list(answer.items())) for answer in answers]
    said += [logged(), repr(ApiKey.objects.values()), repr(ApiKey.objects.get()), str(ApiKey.objects.get())]
    assert [answer.status_code for answer in answers] == [422, 422, 422, 400, 400, 400, 401, 401, 400, 500]
    assert "RuntimeError" in logged()
    assert f"{secret[:16]}…" in logged()
    assert not [text for text in said if tail in text]
