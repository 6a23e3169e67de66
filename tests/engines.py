"""A pytest plugin, loaded before Django's settings are: the engines run, and the test workload is installed."""

import os

from config import embedded

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
os.environ.setdefault("EXTRA_APPS", "tests.workload")
os.environ.setdefault("CALLBACK_ALLOWED_NETWORKS", "127.0.0.0/8")
embedded.ensure()
# A broker and cache of their own, so that tests and a running service do not take each other's messages.
os.environ.setdefault("REDIS_URL", embedded.redis_url(embedded.layout()).replace("db=0", "db=9"))
