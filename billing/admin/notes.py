"""Notes: what operators tell one another about an account. Written once, read by everybody."""

from typing import Any

from django import forms
from django.contrib import admin
from unfold.widgets import UnfoldAdminTextareaWidget

from billing.admin.account_acts import AccountAct
from billing.admin.acts import Done, ReasonForm
from billing.admin.screens import Screen, link, who
from billing.models import LONGEST_NOTE, Account, AccountNote


class NoteForm(ReasonForm):
    """The note is all that there is to say."""

    reason = forms.CharField(
        label="Note",
        max_length=LONGEST_NOTE,
        widget=UnfoldAdminTextareaWidget({"rows": 3}),
        help_text=f"For other operators; customers never see it. At most {LONGEST_NOTE} characters.",
    )


class WriteNote(AccountAct):
    name, title, permission, icon = "write-note", "Write note", "billing.add_accountnote", "sticky_note_2"
    note = "A note is not changed or deleted later. Whoever was wrong writes another."
    form = NoteForm

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        AccountNote.objects.create(account=row, author=by, text=data["reason"])
        return Done("Wrote a note.")


@admin.register(AccountNote)
class AccountNoteScreen(Screen):
    list_display = ("created_at", "account", "by", "beginning")
    list_select_related = ("account",)
    linked = ("account",)
    fields = (("of_account", "by", "created_at"), "text")

    @admin.display(description="account")
    def of_account(self, note: AccountNote) -> str:
        return link("billing_account", note.account_id, note.account)

    @admin.display(description="by")
    def by(self, note: AccountNote) -> str:
        return who(note.author)

    @admin.display(description="note")
    def beginning(self, note: AccountNote) -> str:
        return note.text[:100]
