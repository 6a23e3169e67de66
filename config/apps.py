from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
    verbose_name = "Counterfoil"

    def ready(self) -> None:
        """Make ours the Celery application of every process, and let our checks be known."""
        from config import celery, checks  # noqa: F401
