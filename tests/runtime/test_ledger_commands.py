"""`zhenfu ledger` and `zhenfu invariants` as an operator runs them."""

from __future__ import annotations

import json

import psycopg
import pytest

from bench.ledger_data import fill
from core.ledger import ledger_key
from tests.runtime.environment import environment, keyring, marked
from tests.support.command import zhenfu
from tests.support.postgres import Database

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def values(database: Database) -> dict[str, str]:
    values = environment(database)
    await marked(database, values)
    return values


def test_an_empty_ledger_is_as_it_was_written(values: dict[str, str]) -> None:
    done = zhenfu(values, "ledger", "verify")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["0 payments, 0 transfers, 0 seals read", "the ledger is as it was written"],
    )
    done = zhenfu(values, "ledger", "head")
    assert (done.returncode, done.stdout.strip()) == (0, "")
    done = zhenfu(values, "invariants")
    assert done.returncode == 0
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"ok"}


def test_what_is_wrong_is_said_with_its_place_and_exit_code_1(values: dict[str, str], database: Database) -> None:
    fill(database.superuser_dsn, 40, key=ledger_key(keyring(values)))
    head = zhenfu(values, "ledger", "head").stdout.strip()
    assert zhenfu(values, "ledger", "verify", "--head", head).returncode == 0
    assert zhenfu(values, "invariants").returncode == 0
    with psycopg.connect(database.superuser_dsn, autocommit=True) as forger:
        forger.execute("SET session_replication_role = replica")
        row = forger.execute(
            "UPDATE transfer t SET amount_fen = amount_fen + 7 FROM payment p, institution i WHERE t.id ="
            " (SELECT id FROM transfer WHERE kind = 'confirmed' ORDER BY at LIMIT 1) AND p.id = t.payment_id"
            " AND i.id = t.institution_id RETURNING i.code, p.order_no"
        ).fetchone()
        assert row is not None
        code, order_no = row
        forger.execute("DELETE FROM seal WHERE number = (SELECT max(number) FROM seal)")
    done = zhenfu(values, "ledger", "verify", "--head", head)
    assert done.returncode == 1
    told = done.stdout.splitlines()
    assert told[0] == f"WRONG  {code} {order_no} transfer 2: is not as it was written"
    assert f"WRONG  {code} seal {head.split(':')[1]}: is missing, and its mac was kept outside" in told
    assert told[-1].endswith("things are wrong")
    done = zhenfu(values, "ledger", "verify", "--json", "--show", "1")
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["place"] == order_no
    done = zhenfu(values, "invariants")
    assert done.returncode == 1
    off = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("OFF")]
    assert off == ["none_negative", "awaiting_his", "his_confirmed"]
    assert f"       {code} {order_no}: 7 fen" in done.stdout.splitlines()
    found = {outcome["identity"]: outcome for outcome in json.loads(zhenfu(values, "invariants", "--json").stdout)}
    assert found["awaiting_his"]["off_fen"] == 7


def test_a_head_that_is_none_is_refused(values: dict[str, str]) -> None:
    done = zhenfu(values, "ledger", "verify", "--head", "renhe")
    assert done.returncode == 78
    assert done.stderr.startswith("zhenfu: 'renhe' is no head")
