"""Compares a migrated database with what models, migrations and core/states.py declare.

`make check` runs it as `python -m runtime.schema_check`.
Tortoise's migrations lose some things without a word (constraints of a table's first migration, circular
keys), so what counts is read back from PostgreSQL's own catalogue.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import asyncpg
from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector
from tortoise.migrations.operations import RunSQL
from tortoise.models import Model

from core.states import TRANSITIONS, Table
from runtime.database import MIGRATIONS, credentials_of, database, migrate

APP = "core"
BOOKKEEPING = frozenset({"tortoise_migrations"})
"""Tables of Tortoise itself."""

MORE_FIRST_STATES: Mapping[str, frozenset[str]] = {
    "refund": frozenset({"approved"}),  # a return that needs nobody's approval
}
"""States beside the model's default in which a row may be born."""

_ADD_CONSTRAINT = re.compile(r"ALTER TABLE (\w+) ADD CONSTRAINT (\w+) (UNIQUE|FOREIGN KEY|CHECK|PRIMARY KEY|EXCLUDE)")
_DROP_CONSTRAINT = re.compile(r"ALTER TABLE (\w+) DROP CONSTRAINT (?:IF EXISTS )?(\w+)")
_CREATE_INDEX = re.compile(r"CREATE (UNIQUE )?INDEX (?:CONCURRENTLY )?(\w+) ON (\w+)")
_DROP_INDEX = re.compile(r"DROP INDEX (?:CONCURRENTLY )?(?:IF EXISTS )?(\w+)")
_CREATE_TRIGGER = re.compile(r"CREATE (?:CONSTRAINT )?TRIGGER (\w+) .*? ON (\w+)", re.DOTALL)
_DROP_TRIGGER = re.compile(r"DROP TRIGGER (?:IF EXISTS )?(\w+) ON (\w+)")
_ADD_COLUMN = re.compile(r"ALTER TABLE (\w+) ADD COLUMN (\w+) ([A-Za-z]+(?:\(\d+(?:, ?\d+)?\))?)")
_DROP_COLUMN = re.compile(r"ALTER TABLE (\w+) DROP COLUMN (?:IF EXISTS )?(\w+)")
_CONSTRAINT_KINDS = {"u": "UNIQUE", "f": "FOREIGN KEY", "c": "CHECK", "p": "PRIMARY KEY", "x": "EXCLUDE"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    type: str  # as PostgreSQL writes it
    nullable: bool
    has_default: bool = False
    generated: bool = False


@dataclass(kw_only=True, slots=True)
class Schema:
    """Tables with what hangs on them; names are (table, name) pairs."""

    columns: dict[tuple[str, str], Column]
    constraints: dict[tuple[str, str], str]  # → its kind
    indexes: dict[tuple[str, str], bool]  # → unique; without those that belong to a constraint
    triggers: dict[tuple[str, str], tuple[str, ...]]  # → the arguments of its function
    broken: list[str]  # not validated, switched off


async def differences(owner_url: str) -> list[str]:
    """One sentence for each thing that is not as declared. Reads only, with a temporary table for names of types."""
    async with database(owner_url, pool_max=1) as context:
        assert context.apps is not None
        models = [model for model in context.apps[APP].values() if not model._meta.abstract]
        found = await _unmade_migrations(context)
        connection = await asyncpg.connect(**credentials_of(owner_url))
        try:
            actual = await _read(connection)
            statements = list(_statements())
            declared = await _declared(connection, models, statements)
        finally:
            await connection.close()
    found += [
        f"{model.__name__}.Meta declares {word}: the first migration of a table loses it, write it in SQL"
        for model in models
        for word in ("unique_together", "indexes", "constraints")
        if getattr(model._meta, word, None)
    ]
    found += actual.broken
    found += _compare("column", declared.columns, actual.columns)
    found += _compare("constraint", declared.constraints, actual.constraints)
    found += _compare("index", declared.indexes, actual.indexes)
    found += _compare("trigger", dict.fromkeys(declared.triggers, ""), dict.fromkeys(actual.triggers, ""))
    found += _compare_states(models, actual.triggers)
    return found


def _compare(what: str, declared: Mapping[tuple[str, str], Any], actual: Mapping[tuple[str, str], Any]) -> list[str]:
    def name(key: tuple[str, str]) -> str:
        return ".".join(key)

    return [
        *(f"{what} {name(key)} is declared and missing" for key in sorted(declared.keys() - actual.keys())),
        *(f"{what} {name(key)} is there and nobody declares it" for key in sorted(actual.keys() - declared.keys())),
        *(
            f"{what} {name(key)} is {actual[key]}, declared as {declared[key]}"
            for key in sorted(declared.keys() & actual.keys())
            if declared[key] != actual[key]
        ),
    ]


# ---------------------------------------------------------------- what is declared


async def _unmade_migrations(context: TortoiseContext) -> list[str]:
    """What `makemigrations` would write."""
    assert context.apps is not None
    detector = MigrationAutodetector(context.apps, {APP: {"models": ["core.models"], "migrations": MIGRATIONS}})
    return [
        f"models and migrations differ: {operation.describe()}"
        for writer in await detector.changes()
        for operation in writer.operations
    ]


def _statements() -> Iterable[str]:
    """Every SQL statement in the migrations, in their order."""
    package = import_module(MIGRATIONS)
    for name in sorted(module.name for module in iter_modules(package.__path__)):
        for operation in import_module(f"{MIGRATIONS}.{name}").Migration.operations:
            if isinstance(operation, RunSQL):
                parts = [operation.sql] if isinstance(operation.sql, str) else operation.sql
                for part in parts:
                    yield " ".join((part if isinstance(part, str) else part[0]).split())


async def _declared(connection: asyncpg.Connection, models: list[type[Model]], statements: list[str]) -> Schema:
    wanted = Schema(columns={}, constraints={}, indexes={}, triggers={}, broken=[])
    types: dict[tuple[str, str], str] = {}
    for model in models:
        table = model._meta.db_table
        for field in model._meta.fields_map.values():
            column = field.source_field or field.model_field_name
            key = (table, column)
            types[key] = str(field.get_for_dialect("postgres", "SQL_TYPE"))
            wanted.columns[key] = Column(type="", nullable=field.null, has_default=field.has_db_default())
            if field.pk:
                wanted.constraints[(table, f"{table}_pkey")] = "PRIMARY KEY"
            elif field.unique:
                wanted.constraints[(table, f"{table}_{column}_key")] = "UNIQUE"
            elif field.index:
                wanted.broken.append(f"{table}.{column} asks for an index in its model: write it in SQL")
    for statement in statements:
        _read_statement(statement, wanted, types)
    names = await _names_of_types(connection, set(types.values()))
    wanted.columns = {
        key: Column(
            type=names[types[key]],
            nullable=column.nullable,
            has_default=column.has_default,
            generated=column.generated,
        )
        for key, column in wanted.columns.items()
    }
    return wanted


def _read_statement(statement: str, wanted: Schema, types: dict[tuple[str, str], str]) -> None:
    if match := _ADD_CONSTRAINT.search(statement):
        wanted.constraints[(match[1], match[2])] = match[3]
    elif match := _DROP_CONSTRAINT.search(statement):
        wanted.constraints.pop((match[1], match[2]), None)
    elif match := _CREATE_INDEX.search(statement):
        wanted.indexes[(match[3], match[2])] = bool(match[1])
    elif match := _DROP_INDEX.search(statement):
        wanted.indexes = {key: unique for key, unique in wanted.indexes.items() if key[1] != match[1]}
    elif match := _CREATE_TRIGGER.search(statement):
        wanted.triggers[(match[2], match[1])] = ()
    elif match := _DROP_TRIGGER.search(statement):
        wanted.triggers.pop((match[2], match[1]), None)
    elif match := _ADD_COLUMN.search(statement):
        key = (match[1], match[2])
        types[key] = match[3]
        wanted.columns[key] = Column(
            type="",
            nullable=" NOT NULL" not in statement,
            has_default=" DEFAULT " in statement,
            generated="GENERATED ALWAYS AS (" in statement,
        )
    elif match := _DROP_COLUMN.search(statement):
        wanted.columns.pop((match[1], match[2]), None)


async def _names_of_types(connection: asyncpg.Connection, types: set[str]) -> dict[str, str]:
    """VARCHAR(32) → character varying(32): PostgreSQL itself says how it writes them."""
    ordered = sorted(types)
    async with connection.transaction():
        columns = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(ordered))
        await connection.execute(f"CREATE TEMPORARY TABLE types_as_declared ({columns}) ON COMMIT DROP")
        rows = await connection.fetch(
            "SELECT format_type(atttypid, atttypmod) AS name FROM pg_attribute"
            " WHERE attrelid = 'types_as_declared'::regclass AND attnum > 0 ORDER BY attnum"
        )
    return {type_: row["name"] for type_, row in zip(ordered, rows, strict=True)}


# ---------------------------------------------------------------- what is there

_COLUMNS = """
SELECT t.relname AS table_name, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
    NOT a.attnotnull AS nullable, a.atthasdef AND a.attgenerated = '' AS has_default, a.attgenerated <> '' AS generated
FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid
WHERE t.relnamespace = 'public'::regnamespace AND t.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
_CONSTRAINTS = """
SELECT t.relname AS table_name, c.conname AS name, c.contype::text AS kind, c.convalidated AS valid
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE t.relnamespace = 'public'::regnamespace AND c.contype::text IN ('u', 'f', 'c', 'p', 'x')
"""
_INDEXES = """
SELECT t.relname AS table_name, i.relname AS name, x.indisunique AS is_unique, x.indisvalid AS valid
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
WHERE t.relnamespace = 'public'::regnamespace
    AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u', 'x'))
"""
_TRIGGERS = """
SELECT t.relname AS table_name, g.tgname AS name, g.tgargs AS arguments, g.tgenabled = 'O' AS valid
FROM pg_trigger g JOIN pg_class t ON t.oid = g.tgrelid
WHERE t.relnamespace = 'public'::regnamespace AND NOT g.tgisinternal
"""


async def _read(connection: asyncpg.Connection) -> Schema:
    def keyed(rows: list[asyncpg.Record]) -> dict[tuple[str, str], asyncpg.Record]:
        return {(row["table_name"], row["name"]): row for row in rows if row["table_name"] not in BOOKKEEPING}

    columns = keyed(await connection.fetch(_COLUMNS))
    constraints = keyed(await connection.fetch(_CONSTRAINTS))
    indexes = keyed(await connection.fetch(_INDEXES))
    triggers = keyed(await connection.fetch(_TRIGGERS))
    return Schema(
        columns={
            key: Column(
                type=row["type"],
                nullable=row["nullable"],
                has_default=row["has_default"],
                generated=row["generated"],
            )
            for key, row in columns.items()
        },
        constraints={key: _CONSTRAINT_KINDS[row["kind"]] for key, row in constraints.items()},
        indexes={key: row["is_unique"] for key, row in indexes.items()},
        triggers={
            key: tuple(part.decode() for part in row["arguments"].split(b"\0")[:-1]) for key, row in triggers.items()
        },
        broken=[
            f"{what} {'.'.join(key)} is not in force"
            for what, rows in (("constraint", constraints), ("index", indexes), ("trigger", triggers))
            for key, row in rows.items()
            if not row["valid"]
        ],
    )


# ---------------------------------------------------------------- states


def _compare_states(models: list[type[Model]], triggers: Mapping[tuple[str, str], tuple[str, ...]]) -> list[str]:
    """The triggers' transition tables and first states against core/states.py and the models' defaults."""
    by_table = {model._meta.db_table: model for model in models}
    found = []
    for table, (transitions, states) in TRANSITIONS.items():
        arguments = triggers.get((table, f"{table}_states"))
        if arguments is None or len(arguments) != 2:
            found.append(f"{table} has no trigger {table}_states that holds its transitions")
            continue
        first, steps = (frozenset(argument.split()) for argument in arguments)
        wanted_steps = {f"{source}>{target}" for source, targets in transitions.items() for target in targets}
        found += [
            f"{table} may go {step} in core/states.py, not in the database" for step in sorted(wanted_steps - steps)
        ]
        found += [
            f"{table} may go {step} in the database, not in core/states.py" for step in sorted(steps - wanted_steps)
        ]
        default = str(by_table[table]._meta.fields_map["status"].default)
        wanted_first = {default} | MORE_FIRST_STATES.get(table, frozenset())
        if first != wanted_first:
            found.append(f"{table} begins as {sorted(first)} in the database, declared is {sorted(wanted_first)}")
        found += [f"{table} can never be {state}" for state in sorted(_unreachable(transitions, wanted_first, states))]
    return found


def _unreachable(transitions: Table, first: Iterable[str], states: Iterable[str]) -> set[str]:
    reached: set[str] = set()
    new = set(first)
    while new:
        reached |= new
        new = {str(target) for source in new for target in transitions.get(source, ())} - reached  # type: ignore[call-overload]
    return {str(state) for state in states} - reached


# ---------------------------------------------------------------- the command


async def _check_fresh(owner_url: str) -> list[str]:
    await migrate(owner_url)
    return await differences(owner_url)


def main() -> int:
    """Migrate an empty database of our own and compare; prints what differs."""
    from runtime.embedded_postgres import OWNER_ROLE, EmbeddedPostgres  # only here: the check itself needs none

    folder = Path(tempfile.mkdtemp(prefix="zhenfu-schema-"))
    cluster = EmbeddedPostgres(folder, durable=False)
    try:
        cluster.start(die_with_us=True)
        cluster.create_database("schema_check")
        found = asyncio.run(_check_fresh(cluster.dsn("schema_check", OWNER_ROLE)))
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    for difference in found:
        sys.stderr.write(f"{difference}\n")
    if not found:
        sys.stdout.write("the database is as models, migrations and states declare it\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
