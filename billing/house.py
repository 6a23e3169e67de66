"""The house's own account, which operators' test runs are held against and charged to."""

from django.db import IntegrityError, transaction

from billing.credentials import encrypt, new_callback_secret
from billing.models import Account

NAME = "Internal: test runs of operators"


def house_account() -> Account:
    """The one internal account, opened by whoever needs it first."""
    internal = Account.objects.filter(is_internal=True)
    if found := internal.first():
        return found
    account = Account(name=NAME, is_internal=True, callback_secret=encrypt(new_callback_secret()))
    try:
        with transaction.atomic():
            account.save(force_insert=True)
    except IntegrityError:
        return internal.get()
    return account
