"""What an empty database begins with: example prices, and a deployment of each capability that needs no set-up."""

from decimal import Decimal

from django.conf import settings
from django.db import migrations

# meter, unit, unit_size, credits; 1000 credits are 1 USD. What is free says so.
PRICES = [
    ("task", "task", 1, "1"),
    ("input_tokens", "token", 1000, "1"),
    ("output_tokens", "token", 1000, "4"),
    ("cache_read_tokens", "token", 1000, "0.1"),
    ("cache_creation_tokens", "token", 1000, "1.25"),
    ("reasoning_tokens", "token", 1000, "0"),
    ("image_count", "image", 1, "5"),
    ("image_pixels", "pixel", 1_000_000, "1"),
    ("video_seconds", "second", 1, "20"),
    ("audio_seconds", "second", 60, "6"),
    ("characters", "character", 1000, "0.5"),
]


def install(apps, schema_editor):
    RateCard, Price = apps.get_model("billing", "RateCard"), apps.get_model("billing", "Price")
    Deployment = apps.get_model("tasks", "Deployment")
    if RateCard.objects.exists() or Deployment.objects.exists():
        return
    card = RateCard.objects.create(name="standard")
    for meter, unit, unit_size, credits in PRICES:
        Price.objects.create(rate_card=card, meter=meter, unit=unit, unit_size=unit_size, credits=Decimal(credits))
    Deployment.objects.create(
        name="text-analyze",
        capability="text.analyze",
        resolved_model="text-analyze-1",
        rate_card=card,
        timeout=60,
        is_default=True,
    )
    Deployment.objects.create(
        name="image-transform",
        capability="image.transform",
        resolved_model="image-transform-1",
        rate_card=card,
        timeout=120,
        is_default=True,
    )
    Deployment.objects.create(
        name="echo",
        capability="test.echo",
        resolved_model="echo-1",
        rate_card=card,
        timeout=900,
        bills_partial_output=True,
        is_default=True,
        is_active=settings.DEBUG or settings.ENABLE_TEST_CAPABILITIES,
    )


class Migration(migrations.Migration):
    dependencies = [("tasks", "0002_functions"), ("billing", "0001_initial")]

    operations = [migrations.RunPython(install, migrations.RunPython.noop)]
