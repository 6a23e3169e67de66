"""What a deployment may be set to, and why not: each no names what to do instead."""

import os
import re
from collections.abc import Iterator
from typing import Any

from django import forms

from billing.ratecards import in_force
from billing.statements import rows
from tasks import capabilities
from tasks.models import Deployment, Task
from tasks.pointers import every_error

# Names of what is kept from others, after accessToken and X-API-Key have become access_token and x_api_key.
SECRETIVE = re.compile(
    r"(^|_)(secrets?|passwords?|passwd|passphrases?|pwd|tokens?|(api|access|private|signing|auth|account|master)_?keys?"
    r"|apikeys?|x_key|credentials?|auth|authori[sz]ation|bearer|cookies?)(?=$|_)"
)
# A number under such a name is a secret, unless it counts, as max_tokens and token_limit do.
COUNTS = re.compile(r"tokens$|_?token_(limit|count|budget|size)$|(^|_)(max|min)_")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# How secrets begin that somebody may paste, and addresses that carry one.
PASTED = re.compile(
    r"\s*(sk-|rk-|pk_|whsec_|cf_(live|test)_|gh[pousr]_|xox[a-z]-|AKIA|eyJ|-----BEGIN "
    r"|(?i:bearer|basic|token|apikey)\s+\S)"
)
WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]*@", re.I)


PASTED_HERE = "This looks like a secret. Put it into an environment variable of the workers, and its name here."
BY_NAME = "Give the NAME of an environment variable, in capital letters: the secret itself stays with the workers."
KEPT = "It has tasks, which keep the name that their clients asked for. Make another deployment for another name."
RENAMED = "Its clients ask for it by this name. Once it has a task, the name stays."
ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
LONGER = "A run may take longer than its task may live. Raise this, or lower timeout."


class DeploymentForm(forms.ModelForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding and "name" in self.fields:
            self.fields["name"].help_text = KEPT if _used(self.instance) else RENAMED

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        if not self.instance._state.adding and name != self.initial["name"] and _used(self.instance):
            raise forms.ValidationError(KEPT)
        return name

    def clean_settings(self) -> dict[str, Any]:
        for pointer, no in refused_settings(self.cleaned_data["settings"]):
            self.add_error("settings", f"{pointer}: {no}")
        return self.cleaned_data.get("settings", {})

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        form = capabilities.REGISTRY[data["capability"]].settings if data.get("capability") else None
        if form and "settings" in data and not (checked := form(data=data["settings"])).is_valid():
            for pointer, no in every_error(checked.errors):
                self.add_error("settings", f"{pointer or '/'}: {no}")
        if data.get("timeout", 0) > data.get("max_lifetime", data.get("timeout", 0)):
            self.add_error("max_lifetime", LONGER)
        if data.get("is_default") and (other := self._other_default(data.get("capability"))):
            no = f"{other} is the default of {other.capability}. Take that from it first: a capability has one."
            self.add_error("is_default", no)
            self.instance.is_default = False
        return data

    def _other_default(self, capability: str | None) -> Deployment | None:
        """Whoever asks is the only one until the end of the transaction."""
        rows(ALONE, [f"default of {capability}"])
        return Deployment.objects.filter(capability=capability, is_default=True).exclude(pk=self.instance.pk).first()

    def _get_validation_exclusions(self) -> set[str]:
        """The one default a capability is told of in words of ours."""
        return {*super()._get_validation_exclusions(), "is_default"}


def _used(deployment: Deployment) -> bool:
    return Task.objects.filter(deployment=deployment).order_by().values("pk")[:1].exists()


def refused_settings(settings: Any) -> Iterator[tuple[str, str]]:
    """Secrets that are written out, by pointer: what stands here is shown to every operator and kept in backups."""
    for pointer, secretive, value in _values(settings):
        if isinstance(value, str) and (PASTED.match(value) or WITH_PASSWORD.match(value)):
            yield pointer, PASTED_HERE
        elif secretive and not (isinstance(value, str) and VARIABLE.fullmatch(value)):
            yield pointer, BY_NAME


def named_variables(settings: Any) -> list[str]:
    """The environment variables that settings name."""
    return [value for _, secretive, value in _values(settings) if secretive and VARIABLE.fullmatch(str(value))]


def _values(value: Any, at: str = "", name: str = "", *, below: bool = False) -> Iterator[tuple[str, bool, Any]]:
    """Every text and number of a JSON value: its pointer, whether it, or what it stands in, is named as a secret."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _values(inner, f"{at}/{key}", key, below=below or _secretive(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _values(inner, f"{at}/{index}", name, below=below)
    elif isinstance(value, str):
        yield at, below or _secretive(name), value
    elif value is not None and not isinstance(value, bool):
        yield at, below or (_secretive(name) and not COUNTS.search(_words(name))), value


def _secretive(name: str) -> bool:
    return bool(SECRETIVE.search(_words(name))) and not _words(name).endswith("_url")


def _words(name: str) -> str:
    """accessToken and X-API-Key as access_token and x_api_key."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower())


def doubts(deployment: Deployment) -> list[str]:
    """What an operator should know of a deployment as it is: it may be meant so."""
    capability = capabilities.get(deployment.capability)
    found = []
    if capability is None:
        found.append(f"{deployment.capability} is not installed here: its tasks are refused.")
    elif not capability.available():
        found.append(f"{deployment.capability} is not available here now: its tasks are refused.")
    if not deployment.is_active:
        found.append("It is not active: new tasks are refused, those that wait go on.")
    if deployment.drained_at:
        found.append("It is drained: tasks are taken and wait, and their deadlines run on.")
    if missing := unpriced(deployment):
        found.append(f"Nothing is charged for {', '.join(missing)}: the rate card has no price in force.")
    for name in named_variables(deployment.settings):
        if not os.environ.get(name):
            found.append(f"The environment variable {name} is not set here. The workers may have it.")
    return found


def unpriced(deployment: Deployment) -> list[str]:
    """The meters of its capability that have no price in force."""
    capability = capabilities.get(deployment.capability)
    return sorted(set(capability.meters) - in_force(deployment.rate_card_id).keys()) if capability else []
