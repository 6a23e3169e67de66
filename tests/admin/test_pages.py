"""Every model has a list and a page, cheap to read and closed to the hand."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import Account
from tasks.identifiers import public_id
from tests.admin.people import list_url, member, page_url, root
from tests.admin.world import EVERY, OF_TASKS, SECRET_INPUT, SECRET_OUTPUT, SECRET_TEXT, crowd, world
from tests.builders import account, submit

pytestmark = pytest.mark.django_db
MODELS = (Account, *EVERY)
# By whom Django's permissions allow it: what a deployment and an account are set to, and new cards.
ADDED = {"Account", "Deployment", "RateCard"}
EDITED = {"Deployment"}
MOST_QUERIES = 15


def read(person, url):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        response = person.get(url)
    assert response.status_code == 200, url
    assert len(queries) <= MOST_QUERIES, "\n".join(query["sql"][:200] for query in queries)
    return response.content.decode()


def test_every_model_of_ours_is_registered():
    registered = {model for model in admin.site._registry if model._meta.app_label in ("tasks", "billing")}

    assert registered == set(MODELS)


def test_every_list_and_page_opens_with_few_queries():
    world()
    crowd(4)
    person = root()

    for model in MODELS:
        read(person, list_url(model))
        for row in model.objects.all()[:3]:
            read(person, page_url(row))


def test_a_list_takes_no_more_queries_for_more_rows():
    world()
    person = root()

    def count(model):
        with CaptureQueriesContext(connection) as queries:
            person.get(list_url(model))
        return len(queries)

    few = {model: count(model) for model in MODELS}
    crowd(3)

    assert {model: count(model) for model in MODELS} == few


def test_a_list_never_counts_its_table():
    world()
    person = root()

    for model in MODELS:
        with CaptureQueriesContext(connection) as queries:
            person.get(list_url(model))

        assert not [query["sql"] for query in queries if "COUNT(" in query["sql"]], model


def test_a_list_reads_no_content():
    world()
    person = root()

    for model in MODELS:
        with CaptureQueriesContext(connection) as queries:
            person.get(list_url(model))

        hidden = ('"input"', '"output"', '"body"', '"partial_text"')
        assert not [query["sql"] for query in queries if any(f".{name}" in query["sql"] for name in hidden)], model


def test_nothing_is_added_edited_or_deleted_by_hand():
    world()
    person = root()

    for model in MODELS:
        row, base = model.objects.first(), f"admin:{model._meta.app_label}_{model._meta.model_name}"
        before = model.objects.values().get(pk=row.pk)

        assert person.client.post(reverse(f"{base}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
        if model.__name__ not in ADDED:
            assert person.client.post(reverse(f"{base}_add"), {}).status_code == 403
        if model.__name__ not in EDITED:
            assert person.client.post(page_url(row), {"status": "failed", "name": "x"}).status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": [str(row.pk)], "index": 0}
        person.client.post(list_url(model), chosen)
        assert model.objects.values().get(pk=row.pk) == before


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_content_is_for_whoever_may_view_it(group):
    world()
    person, content = member(group), {SECRET_INPUT, SECRET_OUTPUT, SECRET_TEXT}

    urls = [url for model in OF_TASKS for url in [list_url(model), *map(page_url, model.objects.all())]]
    text = "".join(person.get(url).content.decode() for url in urls)

    assert {word for word in content if word in text} == (content if group == "Operator" else set())


@pytest.mark.parametrize(
    "lookup",
    ["input__icontains", "output__contains", "metadata__icontains", "account__callback_secret__startswith", "timeout"],
)
def test_an_address_cannot_ask_for_what_the_page_does_not_offer(lookup):
    world()

    response = member("Support").get(reverse("admin:tasks_task_changelist"), **{lookup: "what"})

    assert response.status_code == 400


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        ("tasks_task", "status__exact"),
        ("tasks_run", "status__exact"),
        ("tasks_run", "reason_resolved__exact"),
        ("tasks_callback", "status__exact"),
        ("billing_transfer", "kind__exact"),
        ("auth_user", "username"),
        ("auth_group", "name"),
    ],
)
def test_an_address_cannot_ask_for_what_no_text_holds(model, lookup):
    response = root().get(reverse(f"admin:{model}_changelist"), **{lookup: "\x00"})

    assert response.status_code == 400


def test_an_address_cannot_ask_for_secrets_of_keys():
    made = world()

    response = root().get(reverse("admin:billing_apikey_changelist"), digest__startswith=made.key.digest[:1])

    assert response.status_code == 400


def test_the_task_page_tells_its_story():
    made = world()

    page = read(root(), page_url(made.done))

    for expected in (
        public_id(made.done.pk),
        "succeeded",
        "21.0000",  # quoted: 1 + 10 x 2
        "7.0000",  # charged: 1 + 3 x 2
        "input_tokens",
        "task.refunded",
        "callback",
        "worker ",
        "12 ms",
        "Reruns",
        f"{SECRET_OUTPUT}",
    ):
        assert expected in page, expected


def found(person, term):
    response = person.get(reverse("admin:tasks_task_changelist"), q=term)
    assert response.status_code == 200
    return {task.pk for task in response.context["cl"].result_list}


def test_a_task_is_found_by_its_id_in_any_spelling_its_reference_and_its_account():
    task = submit(account(name="Umbrella Corp"), client_reference="order-17")
    submit(account(name="Acme"), client_reference="order-170")
    public, person = public_id(task.pk), root()

    for term in (
        public, public.upper(), public.removeprefix("task_"), str(task.pk), task.pk.hex, f"  {public} ",
        "order-17", "umbrella",
    ):  # fmt: skip
        assert found(person, term) == {task.pk}, term
    assert found(person, "order-1") == set()
    assert found(person, "task_nonsense") == set()


def test_a_task_page_opens_by_its_public_id():
    task = submit()

    assert root().get(reverse("admin:tasks_task_change", args=[public_id(task.pk)])).status_code == 200


def test_every_book_is_searched_by_task_and_account():
    made = world()
    person = root()

    for model in ("transfer", "charge", "usageline"):
        for term in (public_id(made.done.pk), "Acme"):
            response = person.get(reverse(f"admin:billing_{model}_changelist"), q=term)
            assert len(response.context["cl"].result_list) > 0, (model, term)


def test_lists_are_narrowed_by_what_they_offer():
    world()
    person = root()

    response = person.get(reverse("admin:tasks_task_changelist"), status__exact="failed")

    assert {task.status for task in response.context["cl"].result_list} == {"failed"}


def test_people_and_groups_have_pages_too():
    member("Support")
    person = root()

    for model in (User, Group):
        for url in [list_url(model), *map(page_url, model.objects.all())]:
            assert person.get(url).status_code == 200


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_every_group_sees_every_screen_of_ours(group):
    world()
    person = member(group)

    for model in MODELS:
        for url in [list_url(model), page_url(model.objects.first())]:
            assert person.get(url).status_code == 200, url
    assert person.get(reverse("admin:auth_user_changelist")).status_code == 403


def test_who_leaves_is_not_deleted_with_their_history():
    person, user = root(), User.objects.create_user("leaver", is_staff=True)

    answer = person.client.post(reverse("admin:auth_user_delete", args=[user.pk]), {"post": "yes"})

    assert answer.status_code == 403
    assert User.objects.filter(pk=user.pk).exists()


def test_a_login_leads_to_the_index(client):
    User.objects.create_superuser("ann", password="look")

    answer = client.post(reverse("admin:login"), {"username": "ann", "password": "look"})

    assert answer.url == reverse("admin:index")


def test_whoever_is_not_logged_in_sees_nothing(client):
    task = submit()

    for url in (list_url(task), page_url(task), reverse("admin:tasks_task_cancel")):
        assert client.get(url).status_code == 302
