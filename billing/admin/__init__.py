from billing.admin import accounts, keys, prices, reports

__all__ = ["accounts", "keys", "prices", "reports"]
