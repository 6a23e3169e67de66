"""What follows the settings after the first start: migration 0003 made the rows."""

from tasks.capabilities import test_echo
from tasks.models import Deployment


def activate_test_capabilities() -> None:
    """Let `echo` be active exactly while the settings allow test capabilities. Twice is the same as once."""
    Deployment.objects.filter(name="echo", capability="test.echo").update(is_active=test_echo.allowed())
