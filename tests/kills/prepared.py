"""What all machines begin with, made once: a migrated database that does not run yet, and the rows of the morning."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.embedded_postgres import EmbeddedPostgres
from tests.crash import hospital_day
from tests.crash.database import Place, a_workbench
from tests.crash.world import STAGE, Stage
from tests.support.postgres import TEMPLATE, a_cluster, a_migrated_database, chosen_binaries

DATABASE = "day"
CLUSTER, ROWS = "cluster", "stage"
OF_ANOTHER_PLACE = ("port", "lock", "socket")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Read by any number of processes, each of which starts a copy."""

    folder: Path
    stage: Stage

    @classmethod
    def read(cls, folder: Path) -> Prepared:
        return cls(folder=folder, stage=pickle.loads((folder / ROWS).read_bytes()))  # noqa: S301  # our own, just made


def prepare(folder: Path) -> None:
    """Fills the folder. The rows are made in virtual time, in a database of their own."""
    with a_cluster() as cluster:
        with a_migrated_database(cluster) as setup, a_workbench(Place(setup.app_dsn, setup.superuser_dsn)) as bench:
            loop, postgres = bench
            hospital_day.prepare(loop, postgres)
            stage: Stage = postgres.stages[STAGE]
        cluster.create_database(DATABASE, template=TEMPLATE)
        cluster.stop()
        _copy(cluster.folder, folder / CLUSTER)
    (folder / ROWS).write_bytes(pickle.dumps(stage))


@contextmanager
def a_copy(prepared: Prepared) -> Iterator[EmbeddedPostgres]:
    """A running cluster of one's own that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="zhenfu-postgres-"))
    cluster = EmbeddedPostgres(folder, binaries=chosen_binaries(), durable=False)
    try:
        _copy(prepared.folder / CLUSTER, folder)
        cluster.start(die_with_us=True)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _copy(cluster: Path, to: Path) -> None:
    """With its owner, who is not root even when we are."""
    to.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", f"{cluster}/.", str(to)], check=True)
    for name in OF_ANOTHER_PLACE:
        place = to / name
        shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
