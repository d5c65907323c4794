"""What the documents promise is what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import asyncpg
import pytest

from core.states import TRANSITIONS
from runtime.database import migrate
from runtime.doctor import Report, _role
from tests.support.postgres import Database

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_settings_table_has_every_variable_and_no_other() -> None:
    read = set(re.findall(r'"((?:ZHENFU_|DATABASE_|REDIS_)[A-Z_]+)"', (ROOT / "runtime" / "settings.py").read_text()))
    table = README.partition("## Settings")[2].partition("##")[0]
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", table, re.MULTILINE)) == read


def test_every_command_is_described() -> None:
    cli = (ROOT / "runtime" / "cli.py").read_text()
    commands = set(re.findall(r"@(?:app|hospital)\.command\(.*\)\ndef (\w+)", cli))
    groups = set(re.findall(r"add_typer\((\w+),", cli)) - {"hospital"}  # one line for all of a group's
    for group in groups:
        for action in re.findall(rf'@{group}\.command\("(\w+)"\)', cli):
            assert action in README.partition(f"zhenfu {group} ")[2].partition("`")[0]
    commands |= groups
    table = README.partition("## Commands")[2].partition("##")[0]
    described = {name.replace(" ", "_") for name in re.findall(r"^\| `zhenfu ([a-z]+(?: check)?)", table, re.MULTILINE)}
    assert described == commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_runbook_knows_every_kind_of_case() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    kinds = {kind for file in (ROOT / "core").glob("*.py") for kind in _kinds(ast.parse(file.read_text()))}
    assert len(kinds) > 10
    assert {kind for kind in kinds if f"`{kind}`" not in runbook} == set()


def _kinds(tree: ast.AST) -> set[str]:
    """The second argument of each `….cases.open(institution_id, kind, …)`."""
    return {
        call.args[1].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).endswith("cases.open")
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, str)
    }


def test_the_glossary_knows_every_state() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text().partition("## States")[2]
    for _, states in TRANSITIONS.values():
        for state in states:
            assert f"`{state}`" in glossary, state


async def test_the_sql_for_production_makes_roles_that_the_doctor_accepts(empty_database: Database) -> None:
    text = README.partition("```sql\n")[2].partition("```")[0]
    statements = [statement.strip() for statement in text.split(";") if statement.strip()]
    roles = [statement for statement in statements if statement.startswith("CREATE ROLE")]
    assert [role.split()[2] for role in roles] == ["zhenfu_owner", "zhenfu_app"]  # the cluster of the tests has both
    cluster, name = empty_database.cluster, f"{empty_database.name}_readme"
    try:
        with cluster.superuser() as connection:
            for statement in statements:
                if statement not in roles:
                    connection.execute(re.sub(r"DATABASE zhenfu\b", f"DATABASE {name}", statement).encode())
        await migrate(cluster.dsn(name, "zhenfu_owner"))
        app = await asyncpg.connect(cluster.dsn(name, "zhenfu_app"))
        try:
            report = Report()
            await _role(report, app)
        finally:
            await app.close()
    finally:
        cluster.drop_database(name)
    assert [(line.name, line.state) for line in report.lines] == [("role", "ok"), ("privileges", "ok")]
