"""Every setting, from the environment; `embedded` fills in for the two engines when their URLs are unset."""

import os
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import environ
import structlog
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from config import embedded, policies
from config.public_url import public_url

env = environ.Env()

BASE_DIR = Path(__file__).resolve().parent.parent
EMBEDDED = embedded.layout()

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = env.str("SECRET_KEY", default="") or embedded.secret(EMBEDDED, "SECRET_KEY")
ENCRYPTION_KEYS = env.list("ENCRYPTION_KEYS", default=[]) or [embedded.secret(EMBEDDED, "ENCRYPTION_KEYS")]
try:
    for key in ENCRYPTION_KEYS:
        Fernet(key)
except ValueError as error:
    raise ImproperlyConfigured("ENCRYPTION_KEYS: each is a Fernet key, 32 bytes in URL-safe base 64.") from error
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
PUBLIC_URL, ORIGIN = public_url(env.str("PUBLIC_URL", default="http://127.0.0.1:8000"))
HTTPS = PUBLIC_URL.startswith("https://")

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "pgtrigger",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "config.login_names.Logins",
    "billing",
    "tasks",
    "config",
    *env.list("EXTRA_APPS", default=[]),
]

MIDDLEWARE = [
    "config.policies.PolicyMiddleware",
    "tasks.api.middleware.RequestIdMiddleware",
    "tasks.api.transport.HttpsMiddleware",
    "tasks.api.middleware.SlowClientMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
    "tasks.admin.reading.ReadingMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# The database: PostgreSQL only. `prepare_threshold` lets our own hot statements be prepared on the server.
if env.str("DATABASE_URL", default=""):
    DATABASES = {"default": env.db_url("DATABASE_URL")}
else:
    DATABASES = {"default": embedded.database(EMBEDDED)}
if not DATABASES["default"]["ENGINE"].endswith("postgresql"):
    raise ImproperlyConfigured("DATABASE_URL must name a PostgreSQL database: postgres://user:password@host/name")
# Nobody waits for a lock for long, and a client that vanished in the middle of a transaction does not keep one.
LOCK_TIMEOUT_SECONDS = env.float("LOCK_TIMEOUT_SECONDS", default=5)
CONNECTION = {
    "prepare_threshold": 5,
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": f"-c lock_timeout={LOCK_TIMEOUT_SECONDS:g}s -c idle_in_transaction_session_timeout=30s",
}
DATABASES["default"] |= {
    "ENGINE": "django.db.backends.postgresql",
    "CONN_MAX_AGE": 0,
    "CONN_HEALTH_CHECKS": False,
    "OPTIONS": {**CONNECTION, **DATABASES["default"].get("OPTIONS", {})},
}
# The web's threads share connections; it says so by DATABASE_POOL. Celery's processes each have their own.
DATABASE_POOL_SIZE = env.int("DATABASE_POOL_SIZE", default=8)
if env.bool("DATABASE_POOL", default=False):
    DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 0, "max_size": DATABASE_POOL_SIZE, "timeout": 10}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PGTRIGGER_INSTALL_ON_MIGRATE = False

# The broker and the cache.
REDIS_URL = env.str("REDIS_URL", default="") or embedded.redis_url(EMBEDDED)
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CELERY_BROKER_URL = embedded.broker_url(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "health_check_interval": 10}
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_SEND_TASK_EVENTS = False

# The web: processes, and what one of them may have open, each of which keeps a thread: streams and waits, files that it
# sends, bodies that it reads. Then the streams and waits that one key may have, over all processes; how often a stream
# says that it lives, and how long it does at most.
WEB_WORKERS = env.int("WEB_WORKERS", default=1)
WEB_STREAMS = env.int("WEB_STREAMS", default=500)
WEB_FILES = env.int("WEB_FILES", default=100)
WEB_BODIES = env.int("WEB_BODIES", default=32)
KEY_STREAMS = env.int("KEY_STREAMS", default=20)
STREAM_HEARTBEAT_SECONDS = env.float("STREAM_HEARTBEAT_SECONDS", default=5)
STREAM_SECONDS = env.float("STREAM_SECONDS", default=600)

# Times, in seconds unless the name says otherwise.
LEASE_SECONDS = env.float("LEASE_SECONDS", default=60)
HEARTBEAT_SECONDS = env.float("HEARTBEAT_SECONDS", default=15)
INTERRUPT_GRACE_SECONDS = env.float("INTERRUPT_GRACE_SECONDS", default=15)
LAST_RESORT_SECONDS = env.float("LAST_RESORT_SECONDS", default=120)
SWEEP_SECONDS = env.float("SWEEP_SECONDS", default=2)
WATCHDOG_SECONDS = env.float("WATCHDOG_SECONDS", default=30)  # that a worker may stand still though it has work
RETRY_BACKOFF_SECONDS = env.float("RETRY_BACKOFF_SECONDS", default=5)
STOP_SECONDS = env.float("STOP_SECONDS", default=10)  # that a stopping worker gives running tasks to end

CALLBACK_ALLOWED_NETWORKS = env.list("CALLBACK_ALLOWED_NETWORKS", default=[])
try:
    for network in CALLBACK_ALLOWED_NETWORKS:
        ip_network(network)
except ValueError as error:
    raise ImproperlyConfigured(f"CALLBACK_ALLOWED_NETWORKS: {error}; write 10.0.0.0/8,192.168.1.0/24.") from error
CALLBACK_SCHEDULE = [timedelta(seconds=float(s)) for s in env.list("CALLBACK_SCHEDULE", default=[])] or [
    timedelta(seconds=s) for s in (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
]
# A receiver that failed ten times in a row is probed after these seconds, the last of them again and again; what waited
# for it for so many days ends as failed. Attempts of ended callbacks are kept for days, too; 0 keeps them for ever.
CALLBACK_PROBE_SECONDS = [float(s) for s in env.list("CALLBACK_PROBE_SECONDS", default=[])] or [
    30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1800.0,
]  # fmt: skip
CALLBACK_PAUSE_DAYS = env.int("CALLBACK_PAUSE_DAYS", default=5)
CALLBACK_ATTEMPT_DAYS = env.int("CALLBACK_ATTEMPT_DAYS", default=30)
CALLBACK_TIMEOUT_SECONDS = env.float("CALLBACK_TIMEOUT_SECONDS", default=15)
ARTIFACT_SECONDS = env.float("ARTIFACT_SECONDS", default=7 * 86_400)  # that a file is kept
ARTIFACT_LINK_SECONDS = env.float("ARTIFACT_LINK_SECONDS", default=300)  # that a link to it is good for
ARTIFACT_STORE_SECONDS = env.float("ARTIFACT_STORE_SECONDS", default=60)  # that a run may take to store its files
ARTIFACT_BYTES = env.int("ARTIFACT_BYTES", default=64 * 2**20)  # that the files of a task have at most, together
FETCH_TIMEOUT_SECONDS = env.float("FETCH_TIMEOUT_SECONDS", default=30)  # for what a task's input names by its URL

ENABLE_TEST_CAPABILITIES = env.bool("ENABLE_TEST_CAPABILITIES", default=DEBUG)
TEST_CREDITS_A_DAY = env.int("TEST_CREDITS_A_DAY", default=10_000)  # that an account's test keys may spend

# What a request may carry, and the byte by which a body in chunks is seen to be too long; `bodies` enforces it.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2**20 + 1

LANGUAGE_CODE = "en"
FORMAT_MODULE_PATH = "config.formats"
USE_THOUSAND_SEPARATOR = True
LOGIN_REDIRECT_URL = "admin:index"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
# Without a folder to collect them in, static files are served from where the packages have them.
STATIC_ROOT = env.str("STATIC_ROOT", default=None)
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    # What tasks make. Web, workers and sweepers must all reach it: on several machines, name a storage they share.
    "artifacts": {
        "BACKEND": env.str("ARTIFACT_STORAGE", default="django.core.files.storage.FileSystemStorage"),
        "OPTIONS": env.json(
            "ARTIFACT_STORAGE_OPTIONS",
            default={
                "location": str(EMBEDDED.data / "artifacts"),
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        ),
    },
}

# The login of the admin. A name is locked for an address, so that nobody locks out others by their names; an address
# is locked for all names after many more wrong passwords, so that nobody tries one password for every name. Behind
# proxies that each add to X-Forwarded-For, their number says which of its addresses is true; with 0, none is believed.
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", default=0)
AXES_FAILURE_LIMIT = env.int("LOGIN_TRIES", default=5)
LOGIN_ADDRESS_TRIES = env.int("LOGIN_ADDRESS_TRIES", default=100)
AXES_HANDLER = "config.login_locks.Locks"
AXES_COOLOFF_TIME = timedelta(minutes=env.float("LOGIN_LOCK_MINUTES", default=15))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "config.logins.name"
AXES_CLIENT_IP_CALLABLE = "config.logins.client_address"
AXES_LOCKOUT_CALLABLE = "config.logins.locked"
AXES_VERBOSE = False
AXES_SENSITIVE_PARAMETERS = ["username"]  # not in the log: some type their password there
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False  # a lock ends when it said it would
AXES_ENABLE_ADMIN = False  # ours shows them

# What browsers keep and send. `__Host-` names are taken by browsers only from this host, by https, for every path.
SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = ("__Host-session", "__Host-csrf") if HTTPS else ("session", "csrf")
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"  # a link from a chat leads in
CSRF_COOKIE_SAMESITE = "Strict"
LOGIN_DAYS = env.int("LOGIN_DAYS", default=90)  # that a login is listed; 0 keeps it for ever
SESSION_COOKIE_AGE = env.int("SESSION_HOURS", default=12) * 3600
CSRF_TRUSTED_ORIGINS = [ORIGIN]
CONTENT_SECURITY_POLICY = {"DIRECTIVES": policies.PAGE}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "tasks.api.openapi.Schema",
    "EXCEPTION_HANDLER": "tasks.api.errors.handle",
    "URL_FORMAT_OVERRIDE": None,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Counterfoil",
    "DESCRIPTION": "Metered tasks: submit one, wait for it or be called back, and see to the last credit what it cost.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "SERVERS": [{"url": "/"}],
    "LICENSE": {"name": "MIT", "identifier": "MIT"},
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "TaskStatus": "tasks.api.schema.STATUSES",
        "TaskErrorCode": "tasks.api.schema.TASK_ERROR_CODES",
        "WebhookEvent": "tasks.models.endpoint.EVENTS",
        "TestOutcome": "tasks.api.serializers.OUTCOMES",
        "CallbackStatus": "tasks.api.schema.CALLBACK_STATUSES",
        "ApiErrorCode": "tasks.api.openapi.NAMES",
        "Actor": "tasks.api.schema.ACTORS",
        "TransferKind": "tasks.api.schema_money.KINDS",
        "Meter": "tasks.api.schema_money.METERS",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "tasks.api.openapi.complete",
    ],
}
UNFOLD = {
    "SITE_TITLE": "Counterfoil",
    "SITE_HEADER": "Counterfoil",
    "SITE_SYMBOL": "receipt_long",
    "SITE_URL": None,
    "STYLES": [lambda request: static("counterfoil/admin.css")],
    "SCRIPTS": [lambda request: static("counterfoil/copy.js")],
    "DASHBOARD_CALLBACK": "tasks.admin.home.page.home",
    "SIDEBAR": {"navigation": "tasks.admin.navigation.sidebar"},
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("counterfoil/favicon.svg")}
    ],
}

# Logs: one event a line, with the request's or the task's id; LOG_FORMAT is console or json.
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()
LOG_FORMAT = env.str("LOG_FORMAT", default="console")
LOG_CHAIN = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]
LOG_RENDERER = (
    structlog.processors.JSONRenderer() if LOG_FORMAT == "json" else structlog.dev.ConsoleRenderer(colors=False)
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "event": {
            "()": "billing.redaction.Formatter",
            "foreign_pre_chain": LOG_CHAIN,
            "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, LOG_RENDERER],
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "event"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL, "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},
        "axes": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
        "celery.worker.strategy": {"level": "WARNING"},
    },
}
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
