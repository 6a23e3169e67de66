"""What money refuses, each with the code and the HTTP status an API answers with."""


class Refusal(Exception):
    """A clear no: nothing was written. `param` is a JSON Pointer into the request, when one value is to blame."""

    code = "invalid_request"
    status = 422
    message = "The request is refused."
    retryable = False
    retry_after: int | None = None

    def __init__(self, message: str | None = None, *, param: str | None = None, details: object = None) -> None:
        self.message = message or type(self).message
        self.param = param
        self.details = details
        super().__init__(self.message)


class InsufficientBalance(Refusal):
    code, status = "insufficient_balance", 402
    message = "The available credits do not cover the quote."


class SpendCapReached(Refusal):
    code, status = "spend_cap_reached", 402
    message = "The spend cap of this month is reached."


class KeySpendCapReached(SpendCapReached):
    message = "The spend cap of this key for this month is reached."


class RefundTooLarge(Refusal):
    code, status = "refund_too_large", 409
    message = "A refund never exceeds what was charged and not yet refunded."


class NothingCharged(Refusal):
    code, status = "nothing_charged", 409
    message = "Nothing was charged, so nothing can be refunded."


class ChangedSince(Refusal):
    code, status = "changed_since", 409
    message = "It changed since you looked, so nothing was done. Look again."


class KeyReused(Refusal):
    code, status = "idempotency_key_reused", 409
    message = "This key belongs to another transfer."


class KeyEnded(Refusal):
    code, status = "key_ended", 409
    message = "A key that is revoked or expired is not rolled; issue a new one."


REFUSALS: dict[str, type[Refusal]] = {
    "available_never_falls_below_the_credit_limit": InsufficientBalance,
    "monthly_cap": SpendCapReached,
    "monthly_cap_of_the_key": KeySpendCapReached,
    "refunded_never_exceeds_charged": RefundTooLarge,
    "a_line_is_never_refunded_above_its_bill": RefundTooLarge,
    "transfer_charge": NothingCharged,
}
