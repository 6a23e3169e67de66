"""Accounts, keys, prices and the ledger. Credits are NUMERIC(20,4); balances move only by inserting a Transfer."""

from decimal import Decimal
from typing import Any

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.search import SearchVector
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Cast, Concat, Length, Now
from django.db.models.lookups import LessThanOrEqual
from uuid_utils.compat import uuid7

from billing.triggers import HardTrigger, append_only, no_truncate, refusal

BUCKETS = ("granted", "available", "held", "charged", "account_seq", "month", "month_spent")
EMPTY = ("granted", "available", "held", "charged", "account_seq", "month_spent", "pending", "running")
TEXT = models.TextField()
NOT_NEGATIVE = MinValueValidator(Decimal(0))
LONGEST_NOTE = 2000
# From which part of a cap on an operator is shown that it is nearly used up.
NEARLY = Decimal("0.9")
# How names are taken apart so that an account is found by the beginning of any word of its name.
WORDS = "simple"
SCOPES = ("tasks:read", "tasks:write", "tasks:work", "billing:read")


def Credits(**kwargs: Any) -> models.DecimalField:  # noqa: N802 - reads as a field where it is used
    """A field for credits: four places, up to sixteen digits before them."""
    return models.DecimalField(max_digits=20, decimal_places=4, **kwargs)


def printable(text: str) -> None:
    """A validator: a name has no control characters, and none that turn the text around it."""
    if not text.isprintable():
        raise ValidationError("Only printable text is a name.")


def default_scopes() -> list[str]:
    return ["tasks:read", "tasks:write", "billing:read"]


POST_TRANSFER = """
    NEW.created_at := clock_timestamp();
    this_month := date_trunc('month', NEW.created_at AT TIME ZONE 'utc');
    spender := NEW.api_key_id;
    IF NEW.kind = 'release' THEN
        SELECT date_trunc('month', c.created_at AT TIME ZONE 'utc') = this_month, c.api_key_id INTO same_month, spender
        FROM billing_charge c WHERE c.task_id = NEW.task_id;
    ELSIF NEW.kind = 'refund' THEN
        PERFORM 1 FROM billing_account WHERE id = NEW.account_id FOR NO KEY UPDATE;
        SELECT c.charged - c.refunded FROM billing_charge c
        WHERE c.task_id = NEW.task_id AND c.account_id = NEW.account_id INTO refundable;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE='foreign_key_violation', CONSTRAINT='transfer_charge',
                MESSAGE='this account was charged nothing for that task';
        ELSIF NEW.amount > refundable THEN
            RAISE EXCEPTION USING ERRCODE='check_violation', CONSTRAINT='refunded_never_exceeds_charged',
                MESSAGE='a refund never exceeds what was charged and not yet refunded', TABLE='billing_charge';
        END IF;
    END IF;
    UPDATE billing_account SET
        granted = granted + CASE WHEN NEW.kind IN ('grant', 'adjustment') THEN NEW.amount ELSE 0 END,
        available = available + CASE NEW.kind WHEN 'hold' THEN -NEW.amount WHEN 'capture' THEN 0 ELSE NEW.amount END,
        held = held + CASE WHEN NEW.kind = 'hold' THEN NEW.amount
            WHEN NEW.kind IN ('capture', 'release') THEN -NEW.amount ELSE 0 END,
        charged = charged + CASE NEW.kind WHEN 'capture' THEN NEW.amount WHEN 'refund' THEN -NEW.amount ELSE 0 END,
        account_seq = account_seq + 1,
        month = greatest(month, this_month),
        month_spent = greatest(0, CASE WHEN month >= this_month THEN month_spent ELSE 0 END
            + CASE WHEN NEW.kind = 'hold' THEN NEW.amount
                WHEN NEW.kind = 'release' AND same_month AND month = this_month THEN -NEW.amount ELSE 0 END)
    WHERE id = NEW.account_id RETURNING * INTO a;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE='foreign_key_violation', CONSTRAINT='transfer_account', MESSAGE='no such account';
    END IF;
    IF a.available < -a.credit_limit AND (NEW.kind = 'hold' OR NEW.amount < 0) THEN
        RAISE EXCEPTION USING ERRCODE='check_violation', CONSTRAINT='available_never_falls_below_the_credit_limit',
            MESSAGE='the available credits do not cover this', TABLE='billing_account';
    END IF;
    IF NEW.kind = 'hold' AND a.month_spent > a.monthly_cap THEN
        RAISE EXCEPTION USING ERRCODE='CF004', CONSTRAINT='monthly_cap',
            MESSAGE='the monthly cap is reached', TABLE='billing_account';
    END IF;
    IF spender IS NOT NULL AND NEW.kind IN ('hold', 'release') THEN
        UPDATE billing_apikey SET
            month = greatest(month, this_month),
            month_spent = greatest(0, CASE WHEN month >= this_month THEN month_spent ELSE 0 END
                + CASE WHEN NEW.kind = 'hold' THEN NEW.amount
                    WHEN same_month AND month = this_month THEN -NEW.amount ELSE 0 END)
        WHERE id = spender AND account_id = NEW.account_id RETURNING * INTO k;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE='foreign_key_violation', CONSTRAINT='transfer_api_key',
                MESSAGE='this account has no such key';
        ELSIF NEW.kind = 'hold' AND k.month_spent > k.monthly_cap THEN
            RAISE EXCEPTION USING ERRCODE='CF004', CONSTRAINT='monthly_cap_of_the_key',
                MESSAGE='the monthly cap of the key is reached', TABLE='billing_apikey';
        END IF;
    END IF;
    IF NEW.kind = 'hold' THEN
        INSERT INTO billing_charge (task_id, account_id, api_key_id, held, charged, refunded, created_at)
        VALUES (NEW.task_id, NEW.account_id, NEW.api_key_id, NEW.amount, 0, 0, NEW.created_at);
    ELSIF NEW.kind IN ('capture', 'release', 'refund') THEN
        UPDATE billing_charge SET
            held = held - CASE WHEN NEW.kind = 'refund' THEN 0 ELSE NEW.amount END,
            charged = charged + CASE WHEN NEW.kind = 'capture' THEN NEW.amount ELSE 0 END,
            refunded = refunded + CASE WHEN NEW.kind = 'refund' THEN NEW.amount ELSE 0 END
        WHERE task_id = NEW.task_id AND account_id = NEW.account_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION USING ERRCODE='foreign_key_violation', CONSTRAINT='transfer_charge',
                MESSAGE='this account holds nothing for that task';
        END IF;
    END IF;
    IF NEW.usage_line_id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM billing_usageline l
        WHERE l.id = NEW.usage_line_id AND l.task_id = NEW.task_id AND l.billed_amount >= NEW.amount
            + (SELECT coalesce(sum(t.amount), 0) FROM billing_transfer t WHERE t.usage_line_id = l.id)
    ) THEN
        RAISE EXCEPTION USING ERRCODE='check_violation', CONSTRAINT='a_line_is_never_refunded_above_its_bill',
            MESSAGE='the line did not bill that much', TABLE='billing_transfer';
    END IF;
    NEW.account_seq := a.account_seq;
    NEW.granted_after := a.granted;
    NEW.available_after := a.available;
    NEW.held_after := a.held;
    NEW.charged_after := a.charged;
    RETURN NEW;
"""

# An account that was low is so until here: holds and releases about the threshold do not tell it each time.
NO_LONGER_LOW = "NEW.low_balance_threshold + greatest(NEW.low_balance_threshold / 10, 1)"

# What the two checks at commit look for. They refuse what the guards cannot see coming: the trigger of somebody else's
# table, whose depth is two as well, and ON CONFLICT, which keeps what POST_TRANSFER did and drops its row.
NO_TRANSFER_SAYS_SO = """
    NOT EXISTS (
        SELECT 1 FROM billing_transfer t WHERE t.account_id = NEW.id AND t.account_seq = NEW.account_seq
            AND t.granted_after = NEW.granted AND t.available_after = NEW.available
            AND t.held_after = NEW.held AND t.charged_after = NEW.charged)
"""
ITS_TRANSFERS_SAY_OTHERWISE = """
    EXISTS (
        SELECT 1 FROM billing_charge c WHERE c.task_id = NEW.task_id AND NOT EXISTS (
            SELECT 1 FROM billing_transfer t WHERE t.task_id = c.task_id
            HAVING bool_and(t.account_id = c.account_id)
                AND c.held = sum(CASE t.kind WHEN 'hold' THEN t.amount WHEN 'refund' THEN 0 ELSE -t.amount END)
                AND c.charged = sum(CASE t.kind WHEN 'capture' THEN t.amount ELSE 0 END)
                AND c.refunded = sum(CASE t.kind WHEN 'refund' THEN t.amount ELSE 0 END)))
"""
REPLACED = refusal("an_account_is_never_replaced", "An account with transfers stays, and keeps its id")


class Account(models.Model):
    """A customer and the credits they have: `granted = available + held + charged`, always."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, validators=[printable])
    twin_of = models.OneToOneField(
        "self",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="twin",
        help_text="The live account whose test keys use this row.",
    )
    is_active = models.BooleanField(default=True)
    is_internal = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="The house's own, for test runs of operators."
    )

    granted = Credits(default=Decimal(0), editable=False)
    available = Credits(default=Decimal(0), editable=False)
    held = Credits(default=Decimal(0), editable=False)
    charged = Credits(default=Decimal(0), editable=False)
    account_seq = models.BigIntegerField(default=0, editable=False, help_text="How many transfers it has.")
    month = models.DateField(null=True, editable=False, help_text="The UTC month that month_spent counts.")
    month_spent = Credits(default=Decimal(0), editable=False, help_text="Holds and charges of that month.")

    credit_limit = Credits(default=Decimal(0), help_text="How far below zero the available credits may fall.")
    monthly_cap = Credits(
        null=True, blank=True, validators=[NOT_NEGATIVE], help_text="Holds and charges allowed in a UTC month."
    )
    low_balance_threshold = Credits(
        null=True,
        blank=True,
        validators=[NOT_NEGATIVE],
        help_text="Fewer available credits than this are told to the account's webhook endpoints.",
    )
    low_since = models.DateTimeField(
        null=True,
        editable=False,
        help_text="Since fewer credits than the threshold were available, until they rose a tenth above it.",
    )

    pending = models.PositiveIntegerField(default=0, editable=False, help_text="Tasks accepted and not yet final.")
    running = models.PositiveIntegerField(default=0, editable=False)
    pending_limit = models.PositiveIntegerField(default=1000)
    running_limit = models.PositiveIntegerField(default=10)
    requests_per_minute = models.PositiveIntegerField(default=600)

    # What a list is narrowed by. Indexed in place of the balances themselves, which would take HOT updates from them.
    in_credit = models.GeneratedField(
        expression=Q(available__lt=0), output_field=models.BooleanField(), db_persist=True, editable=False
    )
    exhausted = models.GeneratedField(
        expression=Q(account_seq__gt=0, available__lte=-F("credit_limit")),
        output_field=models.BooleanField(),
        db_persist=True,
        editable=False,
    )
    near_cap = models.GeneratedField(
        expression=Q(month_spent__gte=F("monthly_cap") * NEARLY),
        output_field=models.BooleanField(null=True),
        db_persist=True,
        editable=False,
    )

    callback_secret = models.TextField(editable=False, help_text="Encrypted.")
    callback_secret_previous = models.TextField(blank=True, default="", editable=False, help_text="Encrypted.")
    callback_secret_previous_until = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        permissions = [
            ("grant_credits", "Can grant credits"),
            ("adjust_credits", "Can adjust credits"),
            ("rotate_secret", "Can rotate the callback secret"),
            ("disable_account", "Can disable an account"),
        ]
        constraints = [
            models.CheckConstraint(
                name="granted_is_available_plus_held_plus_charged",
                condition=Q(granted=F("available") + F("held") + F("charged")),
            ),
            models.CheckConstraint(
                name="held_and_charged_are_never_negative", condition=Q(held__gte=0, charged__gte=0)
            ),
            models.CheckConstraint(
                name="credit_limit_is_never_negative",
                condition=Q(credit_limit__gte=0, credit_limit__lt=Decimal(10) ** 15),
            ),
            models.CheckConstraint(
                name="monthly_cap_is_never_negative",
                condition=Q(monthly_cap__gte=0, monthly_cap__lt=Decimal(10) ** 16),
            ),
            models.CheckConstraint(
                name="low_balance_threshold_is_never_negative",
                condition=Q(low_balance_threshold__gte=0, low_balance_threshold__lt=Decimal(10) ** 16),
            ),
            models.UniqueConstraint(fields=["is_internal"], condition=Q(is_internal=True), name="one_internal_account"),
            models.CheckConstraint(name="an_account_is_not_its_own_twin", condition=~Q(twin_of=F("id"))),
        ]
        indexes = [
            GinIndex(SearchVector("name", config=WORDS), name="account_words"),
            models.Index("id", condition=Q(low_since__isnull=False), name="account_low"),
            models.Index("id", condition=Q(is_active=False), name="account_disabled"),
            models.Index("id", condition=Q(in_credit=True), name="account_in_credit"),
            models.Index("id", condition=Q(exhausted=True), name="account_exhausted"),
            models.Index("id", condition=Q(near_cap=True), name="account_near_cap"),
            models.Index("id", condition=Q(twin_of__isnull=False), name="account_twins"),
        ]
        triggers = [
            HardTrigger(
                name="balances_move_by_transfers",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf(*BUCKETS),
                condition=pgtrigger.AnyChange(*BUCKETS),
                func="IF pg_trigger_depth() < 2 OR NEW.account_seq <> OLD.account_seq + 1 THEN "
                + refusal("balances_move_by_transfers", "A balance moves only by inserting a transfer")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="balances_are_what_a_transfer_says",
                when=pgtrigger.After,
                operation=pgtrigger.UpdateOf(*BUCKETS),
                timing=pgtrigger.Deferred,
                condition=pgtrigger.AnyChange(*BUCKETS),
                func=f"IF {NO_TRANSFER_SAYS_SO} THEN "
                + refusal("balances_are_what_a_transfer_says", "A balance moves only by inserting a transfer")
                + " END IF; RETURN NULL;",
            ),
            HardTrigger(
                name="low_is_below_the_threshold",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("available", "low_balance_threshold", "low_since"),
                condition=pgtrigger.Condition(
                    "NEW.low_balance_threshold IS NOT NULL OR OLD.low_since IS NOT NULL OR NEW.low_since IS NOT NULL"
                ),
                func="NEW.low_since := CASE WHEN NEW.available < NEW.low_balance_threshold "
                "THEN coalesce(OLD.low_since, clock_timestamp()) "
                f"WHEN NEW.available < {NO_LONGER_LOW} THEN OLD.low_since END; RETURN NEW;",
            ),
            HardTrigger(
                name="an_account_is_never_replaced",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("id") | pgtrigger.Delete,
                func=f"IF TG_OP = 'UPDATE' THEN IF NEW.id <> OLD.id THEN {REPLACED} END IF; RETURN NEW; END IF; "
                f"IF OLD.account_seq > 0 THEN {REPLACED} END IF; RETURN OLD;",
            ),
            HardTrigger(
                name="counters_move_with_tasks",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("pending", "running"),
                condition=pgtrigger.AnyChange("pending", "running"),
                func="IF pg_trigger_depth() < 2 THEN "
                + refusal("counters_move_with_tasks", "A counter moves only with a task")
                + " END IF; IF NEW.pending > OLD.pending AND NEW.pending > NEW.pending_limit THEN "
                + refusal("pending_limit", "The account has as many unfinished tasks as it may", code="CF003")
                + " END IF; IF NEW.running > OLD.running AND NEW.running > NEW.running_limit THEN "
                + refusal("running_limit", "The account runs as many tasks as it may", code="CF003")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="an_account_starts_empty",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func=f"IF {' OR '.join(f'NEW.{column} <> 0' for column in EMPTY)} THEN "
                + refusal("an_account_starts_empty", "An account starts with nothing in it")
                + " END IF; NEW.low_since := CASE WHEN NEW.available < NEW.low_balance_threshold "
                "THEN clock_timestamp() END; RETURN NEW;",
            ),
            no_truncate("account"),
        ]

    def __str__(self) -> str:
        return self.name


class ApiKey(models.Model):
    """A Bearer key. Only the SHA-256 of its 256 random bits is kept; the secret is shown once."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="api_keys")
    name = models.CharField(max_length=200, validators=[printable])
    prefix = models.CharField(max_length=16, editable=False, help_text="How the key begins: enough to recognise it.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=32), default=default_scopes)
    previous_prefix = models.CharField(max_length=16, blank=True, default="", editable=False)
    previous_digest = models.CharField(max_length=64, null=True, editable=False)
    previous_until = models.DateTimeField(
        null=True, editable=False, help_text="Until when the secret before the last roll is good."
    )
    monthly_cap = Credits(
        null=True,
        blank=True,
        validators=[NOT_NEGATIVE],
        help_text="Holds and charges that this key may make in a UTC month. Empty: as the account's.",
    )
    month = models.DateField(null=True, editable=False, help_text="The UTC month that month_spent counts.")
    month_spent = Credits(default=Decimal(0), editable=False, help_text="Holds and charges of that month.")
    last_used_at = models.DateTimeField(null=True, editable=False, help_text="To the minute.")
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        verbose_name = "API key"
        permissions = [("issue_apikey", "Can issue and revoke API keys")]
        constraints = [
            models.UniqueConstraint(
                fields=["previous_digest"], condition=Q(previous_digest__isnull=False), name="one_key_a_previous_digest"
            ),
            models.CheckConstraint(
                name="a_rolled_key_has_an_end",
                condition=Q(previous_digest__isnull=True, previous_until__isnull=True)
                | Q(previous_digest__isnull=False, previous_until__isnull=False),
            ),
            models.CheckConstraint(
                name="monthly_cap_of_a_key_is_never_negative",
                condition=Q(monthly_cap__gte=0, monthly_cap__lt=Decimal(10) ** 16),
            ),
        ]
        indexes = [models.Index(OpClass("prefix", "varchar_pattern_ops"), name="key_prefix")]
        triggers = [
            HardTrigger(
                name="what_a_key_spent_moves_by_transfers",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("month", "month_spent", "account_id"),
                condition=pgtrigger.AnyChange("month", "month_spent", "account"),
                func="IF pg_trigger_depth() < 2 OR NEW.account_id <> OLD.account_id THEN "
                + refusal("what_a_key_spent_moves_by_transfers", "What a key spent moves only by a transfer")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="a_key_starts_with_nothing_spent",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="IF NEW.month_spent <> 0 OR NEW.month IS NOT NULL THEN "
                + refusal("a_key_starts_with_nothing_spent", "A key starts with nothing spent")
                + " END IF; RETURN NEW;",
            ),
            no_truncate("API key"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class RateCard(models.Model):
    """A named set of prices."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return self.name


def per_unit(credits_: Decimal, size: int, unit: str) -> str:
    """A price in words: 0.5 credits per 1,000 characters."""
    number = f"{credits_.normalize():,f}"
    each = unit if size == 1 else f"{size:,} {unit}s"
    return f"{number} credit{'' if number == '1' else 's'} per {each}"


class Price(models.Model):
    """What `unit_size` units of a meter cost from a moment on. Never changed: a new price is a new row."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    rate_card = models.ForeignKey(RateCard, models.PROTECT, related_name="prices")
    meter = models.CharField(max_length=64)
    unit = models.CharField(max_length=32)
    unit_size = models.PositiveIntegerField(default=1)
    credits = models.DecimalField(max_digits=20, decimal_places=10)
    effective_from = models.DateTimeField(db_default=Now())
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            # Of two that begin together the later written one counts.
            models.UniqueConstraint(
                fields=["rate_card", "meter", "effective_from", "created_at"], name="one_price_at_a_time"
            ),
            models.CheckConstraint(
                name="a_price_is_never_negative", condition=Q(credits__gte=0, credits__lt=Decimal(10) ** 10)
            ),
            models.CheckConstraint(name="a_unit_size_is_positive", condition=Q(unit_size__gt=0)),
        ]
        triggers = [
            *append_only("price"),
            HardTrigger(
                name="no_price_from_the_past",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="IF NEW.effective_from < now() THEN "
                + refusal("no_price_from_the_past", "A price never begins in the past")
                + " END IF; RETURN NEW;",
            ),
        ]

    def __str__(self) -> str:
        return per_unit(self.credits, self.unit_size, self.unit)


class PriceWithdrawal(models.Model):
    """A price that never comes into force: nothing is quoted by it, whatever else is written or withdrawn."""

    price = models.OneToOneField(Price, models.PROTECT, primary_key=True, related_name="withdrawal")
    actor = models.CharField(max_length=200)
    reason = models.TextField()
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        triggers = [
            *append_only("withdrawal"),
            # The margin is for transactions under way: no quote has seen a price that is then withdrawn.
            HardTrigger(
                name="withdrawn_before_it_begins",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="IF EXISTS (SELECT FROM billing_price p WHERE p.id = NEW.price_id "
                "AND p.effective_from < clock_timestamp() + interval '1 minute') THEN "
                + refusal("withdrawn_before_it_begins", "A price is withdrawn only before it begins")
                + " END IF; RETURN NEW;",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.price}, withdrawn"


class UsageLine(models.Model):
    """One metered line of a task's charge, written once, at capture. The billed amounts add up to the charge."""

    id = models.BigAutoField(primary_key=True)
    task_id = models.UUIDField()
    account = models.ForeignKey(Account, models.PROTECT, related_name="usage_lines", db_index=False)
    position = models.PositiveSmallIntegerField()
    meter = models.CharField(max_length=64)
    quantity = models.DecimalField(max_digits=30, decimal_places=6)
    unit = models.CharField(max_length=32)
    unit_size = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=20, decimal_places=10, help_text="Credits for unit_size units.")
    price = models.ForeignKey(Price, models.PROTECT, related_name="+")
    listed_amount = Credits(help_text="Quantity x price, rounded, before any cut.")
    billed_amount = Credits()
    usd_reference = models.DecimalField(max_digits=20, decimal_places=7)
    estimated = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task_id", "position"], name="one_line_a_position"),
            models.CheckConstraint(
                name="billed_never_exceeds_listed",
                condition=Q(billed_amount__gte=0, listed_amount__gte=F("billed_amount")),
            ),
            models.CheckConstraint(
                name="a_line_lists_a_number",
                condition=Q(listed_amount__lt=Decimal(10) ** 16, quantity__gte=0, quantity__lt=Decimal(10) ** 24),
            ),
        ]
        indexes = [models.Index(fields=["account", "created_at"], name="usage_line_time")]
        triggers = append_only("usage line")

    def __str__(self) -> str:
        return f"{self.meter} x {self.quantity.normalize():f}"


class Transfer(models.Model):
    """One movement of credits. Inserting it moves the balances of its account and its task's charge."""

    class Kind(models.TextChoices):
        GRANT = "grant"
        HOLD = "hold"
        CAPTURE = "capture"
        RELEASE = "release"
        REFUND = "refund"
        ADJUSTMENT = "adjustment"

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="transfers", db_index=False)
    task_id = models.UUIDField(null=True)
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, null=True, related_name="+", db_index=False, help_text="The key that a hold is made by."
    )
    usage_line = models.ForeignKey(UsageLine, models.PROTECT, null=True, related_name="refunds", db_index=False)
    kind = models.CharField(max_length=16, choices=Kind)
    amount = Credits(help_text="Positive; an adjustment is signed.")
    reason = models.TextField(default="", db_default="")
    actor = models.CharField(max_length=200, default="system", db_default="system")
    key = models.CharField(max_length=200, help_text="What makes writing it twice the same as once.")
    account_seq = models.BigIntegerField(db_default=0)
    granted_after = Credits(db_default=Decimal(0))
    available_after = Credits(db_default=Decimal(0))
    held_after = Credits(db_default=Decimal(0))
    charged_after = Credits(db_default=Decimal(0))
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["key"], name="a_key_moves_once"),
            models.UniqueConstraint(fields=["account", "account_seq"], name="transfers_of_an_account_are_numbered"),
            models.CheckConstraint(
                name="transfer_kind_is_known",
                condition=Q(kind__in=["grant", "hold", "capture", "release", "refund", "adjustment"]),
            ),
            models.CheckConstraint(
                name="an_amount_is_positive_or_an_adjustment",
                condition=Q(amount__lt=Decimal(10) ** 16) & (Q(amount__gt=0) | (Q(kind="adjustment") & ~Q(amount=0))),
            ),
            models.CheckConstraint(
                name="a_transfer_of_a_task_names_it",
                condition=Q(kind__in=["grant", "adjustment"], task_id__isnull=True)
                | Q(kind__in=["hold", "capture", "release", "refund"], task_id__isnull=False),
            ),
            models.CheckConstraint(
                name="a_task_is_held_captured_and_released_once",
                condition=~Q(kind__in=["hold", "capture", "release"])
                | Q(key=Concat("kind", Value(":"), Cast("task_id", TEXT), output_field=TEXT)),
            ),
            models.CheckConstraint(
                name="only_a_refund_names_a_line", condition=Q(usage_line__isnull=True) | Q(kind="refund")
            ),
            models.CheckConstraint(name="only_a_hold_names_a_key", condition=Q(api_key__isnull=True) | Q(kind="hold")),
            models.CheckConstraint(
                name="what_people_do_has_a_reason", condition=Q(kind__in=["hold", "capture", "release"]) | ~Q(reason="")
            ),
            models.CheckConstraint(name="somebody_moved_it", condition=~Q(actor="")),
        ]
        indexes = [
            models.Index(fields=["task_id"], name="transfer_task", condition=Q(task_id__isnull=False)),
            models.Index(fields=["usage_line"], name="transfer_line", condition=Q(usage_line__isnull=False)),
            # What was charged and given back in a time, read from the index alone.
            models.Index(
                fields=["kind", "created_at"],
                include=["account", "amount"],
                condition=Q(kind__in=["capture", "refund"]),
                name="transfer_time",
            ),
            # The seldom ones, which a statement of one kind would walk over all the others to find.
            models.Index(
                "account",
                "account_seq",
                name="transfer_seldom",
                condition=Q(kind__in=["grant", "refund", "adjustment"]),
            ),
        ]
        triggers = [
            *append_only("transfer"),
            HardTrigger(
                name="a_transfer_moves_the_balances",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                declare=[
                    ("a", "billing_account%ROWTYPE"),
                    ("this_month", "date"),
                    ("same_month", "boolean := false"),
                    ("refundable", "numeric"),
                    ("spender", "uuid"),
                    ("k", "billing_apikey%ROWTYPE"),
                ],
                func=POST_TRANSFER,
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"


class Charge(models.Model):
    """What a task holds, was charged and got back. Moved only by transfers; outlives the task."""

    task_id = models.UUIDField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="charges")
    api_key = models.ForeignKey(ApiKey, models.PROTECT, null=True, related_name="+", db_index=False)
    held = Credits()
    charged = Credits()
    refunded = Credits()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        permissions = [("refund_charge", "Can refund a charge")]
        constraints = [
            models.CheckConstraint(name="held_is_never_negative", condition=Q(held__gte=0)),
            models.CheckConstraint(
                name="refunded_never_exceeds_charged", condition=Q(refunded__gte=0, refunded__lte=F("charged"))
            ),
        ]
        indexes = [models.Index("task_id", condition=Q(refunded__gt=0), name="charge_refunded")]
        triggers = [
            HardTrigger(
                name="a_charge_moves_by_transfers",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.Update | pgtrigger.Delete,
                func="IF TG_OP = 'DELETE' OR pg_trigger_depth() < 2 THEN "
                + refusal("a_charge_moves_by_transfers", "A charge moves only by inserting a transfer")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="a_charge_is_what_its_transfers_say",
                when=pgtrigger.After,
                operation=pgtrigger.Insert | pgtrigger.Update,
                timing=pgtrigger.Deferred,
                func=f"IF {ITS_TRANSFERS_SAY_OTHERWISE} THEN "
                + refusal("a_charge_is_what_its_transfers_say", "A charge moves only by inserting a transfer")
                + " END IF; RETURN NULL;",
            ),
            no_truncate("charge"),
        ]

    def __str__(self) -> str:
        return f"{self.charged - self.refunded} of {self.task_id}"


class AccountNote(models.Model):
    """What an operator wants others to know of an account. Written once; who was wrong writes another."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, models.PROTECT, related_name="notes", db_index=False)
    author = models.CharField(max_length=200)
    text = models.TextField(max_length=LONGEST_NOTE)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "note"
        constraints = [
            models.CheckConstraint(name="a_note_says_something", condition=~Q(text="")),
            models.CheckConstraint(
                name="a_note_can_be_read_at_once", condition=LessThanOrEqual(Length("text"), LONGEST_NOTE)
            ),
            models.CheckConstraint(name="somebody_wrote_it", condition=~Q(author="")),
        ]
        indexes = [models.Index("account", F("id").desc(), name="note_account")]
        triggers = append_only("note")

    def __str__(self) -> str:
        return f"{self.author}, {self.created_at:%Y-%m-%d}"


class SentForm(models.Model):
    """A form that has acted on its subject, so that the same form sent again does not."""

    key = models.CharField(max_length=200, primary_key=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ()
        triggers = append_only("sent form")

    def __str__(self) -> str:
        return self.key


class ActReport(models.Model):
    """What became of each of the rows that an operator acted on at once: kept, so that it can be read again."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    act = models.CharField(max_length=100)
    screen = models.CharField(max_length=100, help_text="Whose rows they are: app_model.")
    actor = models.CharField(max_length=200)
    reason = models.TextField()
    rows = models.JSONField(help_text="Of each row its key, its name, the outcome and a sentence.")
    done = models.PositiveIntegerField()
    refused = models.PositiveIntegerField()
    repeated = models.PositiveIntegerField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        default_permissions = ("view",)
        triggers = append_only("act report")

    def __str__(self) -> str:
        return self.act
