"""The environment of a deployment of our own, as an operator would set it."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from core.keyring import Keyring
from runtime.settings import read_settings
from runtime.setup import mark_deployment
from tests.support.postgres import Database

DEPLOYMENT = "renhe-test"


def key(letter: str) -> str:
    return base64.b64encode((letter * 4).encode() + bytes(range(28))).decode()


def environment(database: Database, **changes: str | None) -> dict[str, str]:
    """Everything that is needed; `changes` replace, None takes a variable out."""
    values: dict[str, str | None] = {
        "DATABASE_URL": database.app_dsn,
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "ZHENFU_DEPLOYMENT_ID": DEPLOYMENT,
        "ZHENFU_PUBLIC_URL": "https://pay.hospital.example",
        "ZHENFU_KEYS": f"k1:{key('a')}",
        "ZHENFU_LOOKUP_KEY": key("b"),
        "ZHENFU_SESSION_KEY": key("c"),
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def keyring(values: Mapping[str, str]) -> Keyring:
    return read_settings(values).keyring()


async def marked(database: Database, values: Mapping[str, str]) -> None:
    """Write the row that says that this database belongs to these settings."""
    await mark_deployment(database.owner_dsn, values["ZHENFU_DEPLOYMENT_ID"], keyring(values))
