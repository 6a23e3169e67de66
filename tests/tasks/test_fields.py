"""Fields of our own, as PostgreSQL keeps them."""

import pytest
from django.db import connection

from tasks.models.fields import ExactJSONField

pytestmark = pytest.mark.django_db


def test_text_is_kept_as_it_is_and_takes_no_more_bytes_than_it_has():
    written = ExactJSONField().get_db_prep_value({"text": "\u4e2d\U0001f600"}, connection)

    with connection.cursor() as cursor:
        cursor.execute("SELECT %s::json::text", [written])
        assert cursor.fetchone() == ('{"text": "\u4e2d\U0001f600"}',)
