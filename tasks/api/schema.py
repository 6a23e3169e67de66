"""The task object, field by field: what the OpenAPI document says, and the oracle for the database's own JSON."""

from datetime import UTC
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any

from rest_framework import serializers

from billing.models import Charge, UsageLine
from billing.pricing import METERS
from tasks.identifiers import public_id
from tasks.models import Artifact, Callback, Task
from tasks.statuses import FINAL, ErrorCode, Status

USD_PLACES = Decimal("0.0000001")


class TimestampField(serializers.DateTimeField):
    """RFC 3339, UTC, microseconds."""

    def to_representation(self, value: Any) -> str:
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ProgressSerializer(serializers.Serializer):
    percent = serializers.IntegerField(allow_null=True, min_value=0, max_value=100)
    stage = serializers.CharField(allow_null=True)
    message = serializers.CharField(allow_null=True)


class WarningSerializer(serializers.Serializer):
    code = serializers.CharField()
    message = serializers.CharField()
    field = serializers.CharField(allow_null=True)


class TaskErrorSerializer(serializers.Serializer):
    code = serializers.ChoiceField(choices=[code.value for code in ErrorCode])
    message = serializers.CharField()
    retryable = serializers.BooleanField()


class LineSerializer(serializers.Serializer):
    """One metered line. The billed amounts of all lines add up to the charge."""

    meter = serializers.CharField()
    quantity = serializers.SerializerMethodField()
    unit = serializers.CharField()
    billed_amount_credits = serializers.DecimalField(20, 4, source="billed_amount")
    billed_amount_credits_usd_reference = serializers.DecimalField(20, 7, source="usd_reference")
    listed_amount_credits = serializers.DecimalField(20, 4, source="listed_amount")
    unit_price_credits = serializers.SerializerMethodField()
    unit_size = serializers.IntegerField()
    estimated = serializers.BooleanField()

    def get_quantity(self, line: UsageLine) -> str:
        return plain(line.quantity)

    def get_unit_price_credits(self, line: UsageLine) -> str:
        return plain(line.unit_price)


class UsageSerializer(serializers.Serializer):
    """Totals per meter, 0 when unused; the lines; the charge, null until the task is final."""

    def get_fields(self) -> dict[str, serializers.Field]:
        fields = {meter: serializers.IntegerField(min_value=0) for meter in METERS}
        return fields | {
            "lines": LineSerializer(many=True),
            "credits": serializers.DecimalField(20, 4, allow_null=True),
            "credits_usd_reference": serializers.DecimalField(20, 7, allow_null=True),
        }


class BillingSerializer(serializers.Serializer):
    charged_credits = serializers.DecimalField(20, 4, allow_null=True)
    refunded_credits = serializers.DecimalField(20, 4)
    charged_credits_usd_reference = serializers.DecimalField(20, 7, allow_null=True)
    refunded_credits_usd_reference = serializers.DecimalField(20, 7)
    currency = serializers.ChoiceField(choices=["USD"])
    quoted_credits = serializers.DecimalField(20, 4)
    held_credits = serializers.DecimalField(20, 4)
    net_charged_credits = serializers.DecimalField(20, 4, allow_null=True)


class CallbackSerializer(serializers.Serializer):
    url = serializers.CharField()
    status = serializers.ChoiceField(choices=Callback.Status.values)
    attempt_count = serializers.IntegerField(min_value=0)
    delivered_at = TimestampField(allow_null=True)
    last_error = serializers.CharField(allow_null=True)


class LinksSerializer(serializers.Serializer):
    self = serializers.CharField()
    cancel = serializers.CharField(allow_null=True)
    events = serializers.CharField()
    rerun = serializers.CharField(allow_null=True)


class ArtifactSerializer(serializers.Serializer):
    """A file that the task made: `url` leads to a link, until it expires."""

    name = serializers.CharField()
    content_type = serializers.CharField()
    size = serializers.IntegerField(min_value=0)
    sha256 = serializers.CharField()
    url = serializers.SerializerMethodField()
    expires_at = TimestampField()

    def get_url(self, artifact: Artifact) -> str:
        return f"/v1/tasks/{public_id(artifact.task_id)}/artifacts/{artifact.name}"


class TaskSerializer(serializers.Serializer):
    """The task object, every key always there."""

    object = serializers.ChoiceField(choices=["task"])
    task_id = serializers.CharField()
    status = serializers.ChoiceField(choices=[status.value for status in Status])
    capability = serializers.CharField()
    model = serializers.CharField()
    resolved_model = serializers.CharField()
    metadata = serializers.DictField(child=serializers.CharField())
    input = serializers.DictField()
    progress = ProgressSerializer()
    output = serializers.JSONField(allow_null=True)
    warnings = WarningSerializer(many=True)
    error = TaskErrorSerializer(allow_null=True)
    usage = UsageSerializer()
    billing = BillingSerializer()
    callback = CallbackSerializer(allow_null=True)
    created_at = TimestampField()
    started_at = TimestampField(allow_null=True)
    completed_at = TimestampField(allow_null=True)
    cancel_requested_at = TimestampField(allow_null=True)
    links = LinksSerializer()
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
    artifacts = ArtifactSerializer(many=True)

    def to_representation(self, task: Task) -> dict[str, Any]:
        return super().to_representation(_view(task))


class EventSerializer(serializers.Serializer):
    """One entry of a task's timeline, as the account's keys see it."""

    object = serializers.ChoiceField(choices=["event"])
    seq = serializers.IntegerField()
    type = serializers.CharField()
    created_at = TimestampField()
    actor = serializers.ChoiceField(choices=["api_key", "operator", "system"])
    data = serializers.DictField()


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
            "rerun": f"{self_link}/rerun" if final else None,
        },
        "depends_on": [public_id(other) for other in task.depends_on],
        "rerun_of": public_id(task.rerun_of_id) if task.rerun_of_id else None,
        "artifacts": Artifact.objects.filter(task_id=task.pk).order_by("pk"),
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
