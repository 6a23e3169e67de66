"""The task object, field by field: what the OpenAPI document says, and the oracle for the database's own JSON."""

from datetime import UTC
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import Charge, UsageLine
from billing.pricing import METERS
from tasks.identifiers import public_id
from tasks.models import Artifact, Callback, Task
from tasks.statuses import FINAL, ErrorCode, Status

HEAVY = ("input", "output", "usage", "billing", "callback")
STATUSES = [status.value for status in Status]
TASK_ERROR_CODES = [code.value for code in ErrorCode]
CALLBACK_STATUSES = Callback.Status.values
ACTORS = ["api_key", "operator", "system"]
USD_PLACES = Decimal("0.0000001")


class TimestampField(serializers.DateTimeField):
    """RFC 3339, UTC, microseconds."""

    def to_representation(self, value: Any) -> str:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@extend_schema_field({"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+\.[0-9]{4}$"})
class Credits(serializers.DecimalField):
    """Credits, with four places."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=20, decimal_places=4, **kwargs)


@extend_schema_field({"type": "string", "format": "decimal", "pattern": r"^-?[0-9]+\.[0-9]{7}$"})
class Dollars(serializers.DecimalField):
    """The reference in USD, with seven places; for display only."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=20, decimal_places=7, **kwargs)


@extend_schema_field({"type": "string", "format": "decimal", "pattern": r"^[0-9]+(\.[0-9]+)?$"})
class Quantity(serializers.Field):
    """An exact decimal, without trailing zeros."""

    def to_representation(self, value: Decimal) -> str:
        return plain(value)


@extend_schema_field({"description": "Any JSON value, or null."})
class Anything(serializers.JSONField):
    """Any JSON value."""


class Constant(serializers.ChoiceField):
    """Always this word."""

    def __init__(self, word: str) -> None:
        super().__init__(choices=[word])
        self.word = word

    def get_attribute(self, instance: Any) -> str:
        return self.word


class ConstantSchema(OpenApiSerializerFieldExtension):
    target_class = Constant

    def map_serializer_field(self, auto_schema: Any, direction: str) -> dict[str, Any]:
        return {"type": "string", "const": next(iter(self.target.choices))}


class TaskProgressSerializer(serializers.Serializer):
    percent = serializers.IntegerField(allow_null=True, min_value=0, max_value=100)
    stage = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)


class TaskWarningSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    field = serializers.CharField(allow_null=True)


class TaskErrorSerializer(serializers.Serializer):
    code = serializers.ChoiceField(choices=TASK_ERROR_CODES)
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class UsageLineSerializer(serializers.Serializer):
    """One metered line. The billed amounts of all lines add up to the charge."""

    meter = serializers.CharField()
    quantity = Quantity()
    unit = serializers.CharField()
    billed_amount_credits = Credits(source="billed_amount")
    billed_amount_credits_usd_reference = Dollars(source="usd_reference")
    listed_amount_credits = Credits(source="listed_amount")
    unit_price_credits = Quantity(source="unit_price")
    unit_size = serializers.IntegerField()
    estimated = serializers.BooleanField()


class TaskUsageSerializer(serializers.Serializer):
    """Totals per meter, 0 when unused; the lines; the charge, null until the task is final."""

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = {meter: serializers.IntegerField(min_value=0) for meter in METERS}
        return fields | {
            "lines": UsageLineSerializer(many=True),
            "credits": Credits(allow_null=True),
            "credits_usd_reference": Dollars(allow_null=True),
        }


class TaskBillingSerializer(serializers.Serializer):
    charged_credits = Credits(allow_null=True)
    refunded_credits = Credits()
    charged_credits_usd_reference = Dollars(allow_null=True)
    refunded_credits_usd_reference = Dollars()
    currency = Constant("USD")
    quoted_credits = Credits()
    held_credits = Credits()
    net_charged_credits = Credits(allow_null=True)


class TaskCallbackSerializer(serializers.Serializer):
    url = serializers.CharField()
    status = serializers.ChoiceField(choices=CALLBACK_STATUSES)
    attempt_count = serializers.IntegerField(min_value=0)
    delivered_at = TimestampField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)


class TaskLinksSerializer(serializers.Serializer):
    self = serializers.CharField()
    cancel = serializers.CharField(allow_null=True)
    events = serializers.CharField()
    rerun = serializers.CharField(allow_null=True)


@extend_schema_field({"type": "string", "format": "uri-reference"})
class Where(serializers.Field):
    """Where an artifact is given out."""

    def to_representation(self, artifact: Artifact) -> str:
        return f"/v1/tasks/{public_id(artifact.task_id)}/artifacts/{artifact.name}"


class TaskArtifactSerializer(serializers.Serializer):
    """A file that the task made: `url` leads to a link, until it expires."""

    name = serializers.CharField()
    content_type = serializers.CharField()
    size = serializers.IntegerField(min_value=0)
    sha256 = serializers.CharField()
    url = Where(source="*")
    expires_at = TimestampField()


class TaskSerializer(serializers.Serializer):
    """The task object, every key always there."""

    object = Constant("task")
    task_id = serializers.CharField()
    status = serializers.ChoiceField(choices=STATUSES)
    capability = serializers.CharField()
    model = serializers.CharField()
    resolved_model = serializers.CharField()
    metadata = serializers.DictField(child=serializers.CharField())
    input = serializers.DictField()
    progress = TaskProgressSerializer()
    output = Anything()
    warnings = TaskWarningSerializer(many=True)
    error = TaskErrorSerializer(allow_null=True)
    usage = TaskUsageSerializer()
    billing = TaskBillingSerializer()
    callback = TaskCallbackSerializer(allow_null=True)
    created_at = TimestampField()
    started_at = TimestampField(allow_null=True)
    completed_at = TimestampField(allow_null=True)
    cancel_requested_at = TimestampField(allow_null=True)
    links = TaskLinksSerializer()
    seq = serializers.IntegerField()
    attempt = serializers.IntegerField()
    client_reference = serializers.CharField(allow_null=True)
    priority = serializers.IntegerField(min_value=0, max_value=9)
    test = serializers.BooleanField()
    deadline = TimestampField()
    not_before = TimestampField(allow_null=True)
    paused_at = TimestampField(allow_null=True)
    depends_on = serializers.ListField(child=serializers.CharField())
    rerun_of = serializers.CharField(allow_null=True)
    cancel_reason = serializers.CharField(allow_null=True)
    content_deleted_at = TimestampField(allow_null=True)
    artifacts = TaskArtifactSerializer(many=True)

    def to_representation(self, task: Task) -> dict[str, Any]:
        return super().to_representation(_view(task))


class TaskSummarySerializer(TaskSerializer):
    """A row of a list: the task without its heavy parts, unless `expand` asked for them."""

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = super().get_fields()
        for name in HEAVY:
            fields[name].required = False
        return fields


class TaskListSerializer(serializers.Serializer):
    """A page of tasks; `next_cursor` leads to the next one."""

    object = Constant("list")
    data = TaskSummarySerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)
    has_more = serializers.BooleanField()


class TaskEventSerializer(serializers.Serializer):
    """One entry of a task's timeline, as the account's keys see it."""

    object = Constant("event")
    seq = serializers.IntegerField()
    type = serializers.CharField()
    created_at = TimestampField()
    actor = serializers.ChoiceField(choices=ACTORS)
    data = serializers.DictField()


class TaskEventListSerializer(serializers.Serializer):
    """A page of events; the next one begins after the `seq` of the last."""

    object = Constant("list")
    data = TaskEventSerializer(many=True)
    has_more = serializers.BooleanField()


def plain(number: Decimal) -> str:
    """The exact decimal, without an exponent or trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _view(task: Task) -> dict[str, Any]:
    """The rows behind a task, arranged as the object is."""
    final = task.status in FINAL
    charge = Charge.objects.filter(task_id=task.pk).first()
    zero = Decimal("0.0000")
    held, charged, refunded = (charge.held, charge.charged, charge.refunded) if charge else (zero, zero, zero)
    columns = {field.attname: getattr(task, field.attname) for field in Task._meta.concrete_fields}
    task_id = public_id(task.pk)
    self_link = f"/v1/tasks/{task_id}"
    return columns | {
        "object": "task",
        "task_id": task_id,
        "usage": {
            **{meter: _total(task.usage.get(meter, "0")) for meter in METERS},
            "lines": UsageLine.objects.filter(task_id=task.pk).order_by("position"),
            "credits": charged if final else None,
            "credits_usd_reference": _usd(charged, task) if final else None,
        },
        "billing": {
            "charged_credits": charged if final else None,
            "refunded_credits": refunded,
            "charged_credits_usd_reference": _usd(charged, task) if final else None,
            "refunded_credits_usd_reference": _usd(refunded, task),
            "currency": "USD",
            "quoted_credits": task.quoted,
            "held_credits": held,
            "net_charged_credits": charged - refunded if final else None,
        },
        "callback": _callback(task),
        "links": {
            "self": self_link,
            "cancel": None if final else f"{self_link}/cancel",
            "events": f"{self_link}/events",
            "rerun": f"{self_link}/rerun" if final and not task.content_deleted_at else None,
        },
        "depends_on": [public_id(other) for other in task.depends_on],
        "rerun_of": public_id(task.rerun_of_id) if task.rerun_of_id else None,
        "artifacts": [] if task.content_deleted_at else Artifact.objects.filter(task_id=task.pk).order_by("pk"),
    }


def _callback(task: Task) -> dict[str, Any] | None:
    if task.callback_url is None:
        return None
    owed = Callback.objects.filter(task=task).order_by("-id").first() or Callback(status="pending", attempt_count=0)
    return {
        "url": task.callback_url,
        "status": owed.status,
        "attempt_count": owed.attempt_count,
        "delivered_at": owed.delivered_at,
        "last_error": owed.last_error,
    }


def _total(quantity: str) -> int:
    return int(Decimal(quantity).to_integral_value(ROUND_CEILING))


def _usd(amount: Decimal, task: Task) -> Decimal:
    return (amount / task.usd_rate).quantize(USD_PLACES, ROUND_HALF_UP)
