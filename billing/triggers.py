"""Database triggers that no setting can switch off.

django-pgtrigger's stock functions obey `SET pgtrigger.ignore`, so any SQL user could walk around them, and pay a
subtransaction a row for asking. These have neither, and carry an error code and a constraint name, so that code can
map a refusal by name.

    CF001  a row that may not be changed, or not by this door
    CF002  an illegal move of a status
    CF003  a counter that would rise above its limit
    CF004  a spend cap that would be passed
"""

from typing import Any

import pgtrigger
from django.db import models
from pgtrigger import compiler


class HardSql(compiler.UpsertTriggerSql):
    """The installation template; migrations name this class, so a change of it is a new class.

    Its functions see our schema only: a temporary table of the same name comes last instead of first.
    """

    def get_template(self) -> str:
        return """
            CREATE OR REPLACE FUNCTION {pgid}() RETURNS TRIGGER LANGUAGE plpgsql AS $$
                {declare}
                BEGIN
                    {func}
                END;
            $$;
            DO $$ BEGIN
                EXECUTE format('ALTER FUNCTION {pgid}() SET search_path = %I, pg_temp', current_schema());
            END $$;
            DROP TRIGGER IF EXISTS {pgid} ON {table};
            CREATE {constraint} TRIGGER {pgid} {when} {operation} ON {table} {timing} {referencing}
                FOR EACH {level} {condition} EXECUTE PROCEDURE {execute};
            COMMENT ON TRIGGER {pgid} ON {table} IS '{hash}';
        """


class HardTrigger(pgtrigger.Trigger):
    """A trigger without a way around it short of `ALTER TABLE ... DISABLE TRIGGER`."""

    def compile(self, model: type[models.Model]) -> compiler.Trigger:
        return compiler.Trigger(
            name=self.name,
            sql=HardSql(
                pgid=self.get_pgid(model),
                declare=self.render_declare(model),
                func=self.render_func(model),
                table=model._meta.db_table,
                constraint="CONSTRAINT" if self.timing else "",
                when=self.when,
                operation=self.operation,
                timing=f"DEFERRABLE INITIALLY {self.timing}" if self.timing else "",
                referencing=self.referencing or "",
                level=self.level,
                condition=self.render_condition(model),
                execute=self.render_execute(model),
            ),
        )


class Refuse(HardTrigger):
    """Refuses the operation outright, for every row or, with TRUNCATE, for the statement."""

    when = pgtrigger.Before

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        self.message = message
        super().__init__(**kwargs)

    def get_func(self, model: type[models.Model]) -> str:
        return refusal(self.name, self.message)


def refusal(constraint: str, message: str, *, code: str = "CF001") -> str:
    """The PL/pgSQL statement that refuses, with a constraint name that code can map."""
    return (
        f"RAISE EXCEPTION USING ERRCODE='{code}', CONSTRAINT='{constraint}', MESSAGE='{message}', TABLE=TG_TABLE_NAME;"
    )


def append_only(noun: str) -> list[pgtrigger.Trigger]:
    """Rows that are written once: neither UPDATE nor DELETE nor TRUNCATE."""
    return [
        Refuse(name="no_update", operation=pgtrigger.Update, message=f"No {noun} is ever changed"),
        Refuse(name="no_delete", operation=pgtrigger.Delete, message=f"No {noun} is ever deleted"),
        no_truncate(noun),
    ]


def no_truncate(noun: str) -> pgtrigger.Trigger:
    """The statement-level half of `append_only`, for tables whose rows may change by their own door."""
    return Refuse(
        name="no_truncate",
        level=pgtrigger.Statement,
        operation=pgtrigger.Truncate,
        message=f"No {noun} is ever deleted",
    )
