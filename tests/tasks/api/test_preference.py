"""What the header `Prefer` says of waiting, or seems to."""

import pytest
from rest_framework.test import APIRequestFactory

from tasks.api import preference


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("WAIT = 5", 5),
        ('wait="7"', 7),
        ("respond-async, wait=10", 10),
        ("wait=10; a=b, wait=20", 10),
        ('note="a, wait=3", wait=4', 4),
        ("wait=0", 0),
        ("wait=99999", 60),
        ("", None),
        ("wait", None),
        ("wait=", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=soon", None),
        ("wait=9999999999", None),
        ('wait="5', None),
        ('a="wait=5"', None),
        ("await=5", None),
        ("wait=\u0665", None),
        (", " * 400 + "wait=5", 5),
        (", " * 600 + "wait=5", None),
    ],
)
def test_a_preference_is_read_or_ignored(header, seconds):
    assert preference.preferred(APIRequestFactory().get("/", headers={"Prefer": header})) == seconds
