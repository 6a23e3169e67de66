import json
from functools import partial
from typing import Any

from django.db import models
from psycopg.types.json import Json

# Text as it is: a letter that JSON would write as \u4e2d takes three bytes, not six.
dumps = partial(json.dumps, ensure_ascii=False)


class ExactJSONField(models.JSONField):
    """JSON kept as it was written: its order of keys, and 1e308 as five characters where jsonb would write 309."""

    def db_type(self, connection: Any) -> str:
        return "json"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        return value  # psycopg has parsed it; a string among the values is a JSON string

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:  # noqa: FBT001, FBT002
        return None if value is None else Json(value, dumps=dumps)
