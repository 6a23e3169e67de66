"""An account's money, field by field: the account, its transfers, its usage."""

from decimal import Decimal
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.models import Transfer
from billing.pricing import UNITS
from tasks.api.schema import ACTORS, Constant, Credits, Quantity, TimestampField
from tasks.identifiers import public_id

METERS = list(UNITS)
KINDS = Transfer.Kind.values


class TaskId(serializers.CharField):
    """A task's id, as clients know it."""

    def to_representation(self, value: Any) -> str:
        return public_id(value)


class Actor(serializers.ChoiceField):
    """Who did it, without a name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=ACTORS, **kwargs)

    def to_representation(self, value: str) -> str:
        kind = value.partition(":")[0]
        return kind if kind in ACTORS else "system"


class MonthSpent(Credits):
    """Holds and charges of this month; what an earlier month spent does not count."""

    def to_representation(self, account: Any) -> str:
        this_month = account.month is not None and account.month >= account.this_month
        return super().to_representation(account.month_spent if this_month else Decimal(0))


class AccountSerializer(serializers.Serializer):
    """Credits and limits. `granted = available + held + charged`; a cap that is null is none; months are UTC."""

    object = Constant("account")
    name = serializers.CharField()
    granted_credits = Credits(source="granted")
    available_credits = Credits(source="available")
    held_credits = Credits(source="held")
    charged_credits = Credits(source="charged")
    credit_limit_credits = Credits(source="credit_limit")
    monthly_cap_credits = Credits(source="monthly_cap", allow_null=True)
    month_spent_credits = MonthSpent(source="*")
    low_balance_threshold_credits = Credits(source="low_balance_threshold", allow_null=True)
    pending_tasks = serializers.IntegerField(source="pending")
    pending_tasks_limit = serializers.IntegerField(source="pending_limit")
    running_tasks = serializers.IntegerField(source="running")
    running_tasks_limit = serializers.IntegerField(source="running_limit")
    requests_per_minute = serializers.IntegerField()
    created_at = TimestampField()


class TransferSerializer(serializers.Serializer):
    """One movement of credits, and the balances after it. `seq` counts the account's transfers."""

    object = Constant("transfer")
    seq = serializers.IntegerField(source="account_seq")
    kind = serializers.ChoiceField(choices=KINDS)
    amount_credits = Credits(source="amount", help_text="Positive; an adjustment is signed.")
    task_id = TaskId(allow_null=True)
    meter = serializers.ChoiceField(choices=METERS, allow_null=True, help_text="Of a refund by line: that line's.")
    actor = Actor()
    granted_credits = Credits(source="granted_after")
    available_credits = Credits(source="available_after")
    held_credits = Credits(source="held_after")
    charged_credits = Credits(source="charged_after")
    created_at = TimestampField()


class TransferListSerializer(serializers.Serializer):
    """A page of transfers; `next_cursor` leads to the next one."""

    object = Constant("list")
    data = TransferSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)
    has_more = serializers.BooleanField()


@extend_schema_field({"type": ["string", "null"], "format": "date"})
class Day(serializers.CharField):
    """A UTC day."""


class UsageSumSerializer(serializers.Serializer):
    """A sum of usage lines. What it is not grouped by is null, and so is the model or key of a purged task."""

    object = Constant("usage")
    day = Day(allow_null=True)
    model = serializers.CharField(allow_null=True)
    meter = serializers.ChoiceField(choices=METERS, allow_null=True)
    key = serializers.CharField(allow_null=True, help_text="How the API key begins.")
    unit = serializers.CharField(allow_null=True)
    quantity = Quantity(allow_null=True, help_text="When grouped by meter; there is no sum of several meters.")
    listed_amount_credits = Credits()
    billed_amount_credits = Credits(help_text="Refunds are not taken off.")
    tasks = serializers.IntegerField()


class UsageListSerializer(serializers.Serializer):
    """All the sums; there is one page."""

    object = Constant("list")
    data = UsageSumSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)
    has_more = serializers.BooleanField()
