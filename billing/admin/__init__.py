from billing.admin import keys, notes, prices, reports

__all__ = ["keys", "notes", "prices", "reports"]
