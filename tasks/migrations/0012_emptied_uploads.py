"""Uploads that the sweeper emptied stay for a day."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('tasks', '0011_owed_again'),
    ]

    operations = [
        migrations.AddField(
            model_name='upload',
            name='emptied_at',
            field=models.DateTimeField(help_text='When the sweeper deleted them.', null=True),
        ),
    ]
