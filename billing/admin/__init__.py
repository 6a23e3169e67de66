from billing.admin import accounts, keys, prices

__all__ = ["accounts", "keys", "prices"]
