"""What a deployment may be set to, and why not: each no names what to do instead."""

import os
import re
from collections.abc import Iterator
from typing import Any

from django import forms

from billing.ratecards import in_force
from tasks import capabilities
from tasks.models import Deployment, Task
from tasks.pointers import every_error

SECRETIVE = re.compile(r"(^|[_-])(secret|password|passwd|token|api_?key|credentials?|authorization)($|[_-])", re.I)
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
# How secrets begin that somebody may paste, and addresses that carry one.
PASTED = re.compile(r"(sk-|rk-|pk_|whsec_|cf_(live|test)_|gh[pousr]_|xox[a-z]-|AKIA|eyJ|Bearer |Basic |-----BEGIN )")
WITH_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]*@", re.I)


PASTED_HERE = "This looks like a secret. Put it into an environment variable of the workers, and its name here."
BY_NAME = "Give the NAME of an environment variable, in capital letters: the secret itself stays with the workers."
KEPT = "It has tasks, which keep the name that their clients asked for. Make another deployment for another name."
RENAMED = "Its clients ask for it by this name. Once it has a task, the name stays."
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
        return Deployment.objects.filter(capability=capability, is_default=True).exclude(pk=self.instance.pk).first()

    def _get_validation_exclusions(self) -> set[str]:
        """The one default a capability is told of in words of ours."""
        return {*super()._get_validation_exclusions(), "is_default"}


def _used(deployment: Deployment) -> bool:
    return Task.objects.filter(deployment=deployment).order_by().values("pk")[:1].exists()


def refused_settings(settings: Any) -> Iterator[tuple[str, str]]:
    """Secrets that are written out, by pointer: what stands here is shown to every operator and kept in backups."""
    for pointer, name, text in _texts(settings):
        if PASTED.match(text) or WITH_PASSWORD.match(text):
            yield (
                pointer,
                "This looks like a secret. Put it into an environment variable of the workers, and its name here.",
            )
        elif SECRETIVE.search(name) and not name.endswith("_url") and not VARIABLE.fullmatch(text):
            yield (
                pointer,
                "Give the NAME of an environment variable, in capital letters: the secret itself stays there.",
            )


def named_variables(settings: Any) -> list[str]:
    """The environment variables that settings name."""
    return [text for _, name, text in _texts(settings) if SECRETIVE.search(name) and VARIABLE.fullmatch(text)]


def _texts(value: Any, at: str = "", name: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text of a JSON value: its pointer, the name it stands under, itself."""
    if isinstance(value, str):
        yield at, name, value
    elif isinstance(value, dict):
        for key, below in value.items():
            yield from _texts(below, f"{at}/{key}", key)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from _texts(below, f"{at}/{index}", name)


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
