"""What people read where axes names itself."""

from axes.apps import AppConfig as Axes


class Logins(Axes):
    verbose_name = "Logins"
