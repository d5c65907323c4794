"""The sandbox's and the tests' own PostgreSQL."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runtime.embedded_postgres import APP_ROLE, OWNER_ROLE, EmbeddedPostgres, packaged_binaries
from tests.support.postgres import Database, chosen_binaries


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not tmp_path: that is closed to the unprivileged user whom root's PostgreSQL runs as."""
    with tempfile.TemporaryDirectory(prefix="zhenfu-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def cluster(folder: Path) -> Iterator[EmbeddedPostgres]:
    cluster = EmbeddedPostgres(folder / "cluster", binaries=chosen_binaries(), durable=False)
    yield cluster
    cluster.stop()


@pytest.mark.database
def test_started_twice_it_is_one_server_on_one_port(cluster: EmbeddedPostgres, folder: Path) -> None:
    first = cluster.start()
    second = EmbeddedPostgres(folder / "cluster", binaries=chosen_binaries(), durable=False).start()
    assert first == second


@pytest.mark.database
def test_it_comes_back_after_a_kill_with_its_data(cluster: EmbeddedPostgres) -> None:
    cluster.start()
    cluster.create_database("kept")
    os.kill(_postmaster(cluster), signal.SIGKILL)

    cluster.start()

    assert cluster.has_database("kept")


@pytest.mark.database
def test_a_killed_initdb_is_begun_again(cluster: EmbeddedPostgres) -> None:
    half = cluster.folder / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    cluster.start()

    assert not half.exists()


@pytest.mark.database
def test_it_works_in_a_folder_with_a_long_chinese_name(folder: Path) -> None:
    cluster = EmbeddedPostgres(folder / ("诊付 '沙箱'" * 12), binaries=chosen_binaries(), durable=False)
    try:
        cluster.start()
        cluster.create_database("reachable")
        assert cluster.has_database("reachable")
        socket_folder = cluster.socket_folder
    finally:
        cluster.stop()
    assert not socket_folder.exists()


@pytest.mark.database
def test_it_ends_with_the_program_that_started_it_even_when_that_is_killed(folder: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from runtime.embedded_postgres import EmbeddedPostgres;"
        "binaries = Path(sys.argv[2]) if sys.argv[2] else None;"
        "EmbeddedPostgres(Path(sys.argv[1]), binaries=binaries, durable=False).start(die_with_us=True);"
        "print('up', flush=True); time.sleep(60)"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script, folder / "cluster", str(chosen_binaries() or "")],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"up\n"
    program.kill()
    program.communicate()

    pid_file = folder / "cluster" / "data" / "postmaster.pid"
    deadline = time.monotonic() + 20
    while pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not pid_file.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that PostgreSQL's user cannot open")
def test_root_runs_it_from_programs_that_only_root_can_reach(folder: Path) -> None:
    private = folder / "home-of-root"
    private.mkdir(mode=0o700)
    package = packaged_binaries().parents[1]
    subprocess.run(["cp", "-a", package, package.with_suffix(".libs"), private], check=True)
    binaries = private / package.name / "pginstall18" / "bin"
    cluster = EmbeddedPostgres(folder / "cluster", binaries=binaries, durable=False)
    try:
        cluster.start()
        assert cluster.has_database("postgres")
    finally:
        cluster.stop()


def test_the_programs_role_can_connect_and_create_nothing(empty_database: Database) -> None:
    with (
        psycopg.connect(empty_database.app_dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE mine (a int)")


def test_the_owner_role_can_create_tables_and_schemas(empty_database: Database) -> None:
    with psycopg.connect(empty_database.owner_dsn) as connection:
        connection.execute("CREATE SCHEMA jobs")
        connection.execute("CREATE TABLE bills (a int)")
        row = connection.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'bills'").fetchone()
    assert row == (OWNER_ROLE,)


def test_the_superuser_is_not_reachable_over_tcp(empty_database: Database) -> None:
    address = empty_database.cluster.address
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        psycopg.connect(host=address.host, port=address.port, user="postgres", dbname="postgres")


def test_a_copy_of_a_database_belongs_to_the_owner_and_lets_the_programs_in(empty_database: Database) -> None:
    with psycopg.connect(empty_database.owner_dsn) as connection:
        connection.execute(f"CREATE TABLE bills (a int); GRANT SELECT ON bills TO {APP_ROLE}")
    cluster = empty_database.cluster
    cluster.create_database("copied", template=empty_database.name)
    try:
        with psycopg.connect(cluster.dsn("copied")) as connection:
            assert connection.execute("SELECT count(*) FROM bills").fetchone() == (0,)
    finally:
        cluster.drop_database("copied")
        assert not cluster.has_database("copied")


def _postmaster(cluster: EmbeddedPostgres) -> int:
    return int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
