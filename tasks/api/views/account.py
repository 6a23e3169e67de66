"""`/v1/account` and its statement: what the account has, may do and was moved."""

from django.db.models import F
from django.db.models.functions import Now, TruncMonth
from rest_framework.request import Request
from rest_framework.response import Response

from billing.models import Account, Transfer
from tasks.api.endpoint import Endpoint
from tasks.api.filters import TransferFilter
from tasks.api.pagination import page_of
from tasks.api.schema_money import AccountSerializer, TransferSerializer


class AccountView(Endpoint):
    """The caller's account."""

    reading = ("billing:read",)

    def get(self, request: Request) -> Response:
        """Balances, caps, counters and limits, as they are now."""
        now = Account.objects.annotate(this_month=TruncMonth(Now(), output_field=Account._meta.get_field("month")))
        return Response(AccountSerializer(now.get(pk=request.user.account_id)).data)


class TransfersView(Endpoint):
    """The account's statement."""

    reading = ("billing:read",)
    queried = ("get", "head")

    def get(self, request: Request) -> Response:
        """Transfers, newest first, a page at a time."""
        page = page_of(request)
        own = Transfer.objects.filter(account_id=request.user.account_id).annotate(meter=F("usage_line__meter"))
        shown, more = page.rows(TransferFilter.apply(request.query_params, own), by="account_seq")
        return Response(
            {
                "object": "list",
                "data": TransferSerializer(shown, many=True).data,
                "next_cursor": page.cursor(shown[-1].account_seq) if more else None,
                "has_more": more,
            }
        )
