"""A database as it was: every row is kept aside and put back later, as a restore from a backup would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.support.postgres import Database


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    database: Database
    rows: dict[str, bytes]

    @classmethod
    def take(cls, database: Database) -> Backup:
        with psycopg.connect(database.superuser_dsn) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tables = connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            ).fetchall()
            return cls(database=database, rows={name: _read(connection, name) for (name,) in tables})

    def restore(self) -> None:
        """Everything written since is gone; triggers and keys are not asked, as pg_restore does not ask them."""
        with psycopg.connect(self.database.superuser_dsn) as connection:
            connection.execute("SET session_replication_role = replica")
            for name, rows in self.rows.items():
                table = sql.Identifier(name)
                connection.execute(sql.SQL("DELETE FROM {}").format(table))
                with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN (FORMAT binary)").format(table)) as copy:
                    copy.write(rows)


def _read(connection: psycopg.Connection[Any], name: str) -> bytes:
    with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(name))) as copy:
        return b"".join(bytes(part) for part in copy)
