"""The command `zhenfu`. A mistake of the operator's ends in one sentence and exit code 78, never in a traceback."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from core.errors import ConfigurationError
from runtime import logs
from runtime.sandbox_places import CONSOLE_PORT

if TYPE_CHECKING:
    from runtime.settings import Settings

# Each command imports what it needs when it runs: `zhenfu version` must not load a web server.

MISCONFIGURED = 78  # EX_CONFIG of sysexits.h; supervisors need not start us again

CORES = os.cpu_count() or 1

app = typer.Typer(
    name="zhenfu",
    help="诊付: collects a hospital's outpatient fees and never loses a fen doing it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
hospital = typer.Typer(help="The hospital's side of the connection.", no_args_is_help=True)
app.add_typer(hospital, name="hospital")
menu = typer.Typer(help="The menu of a hospital's official account.", no_args_is_help=True)
app.add_typer(menu, name="menu")
ledger = typer.Typer(help="The ledger: its chains and seals.", no_args_is_help=True)
app.add_typer(ledger, name="ledger")
staff = typer.Typer(help="Members of staff, what they may do, and their keys.", no_args_is_help=True)
app.add_typer(staff, name="staff")


def main() -> NoReturn:
    """Run a command; the exit code is 0, 1 (it failed), 2 (wrong usage) or 78 (a setting must change)."""
    try:
        app()
    except ConfigurationError as error:
        sys.stderr.write(f"zhenfu: {error}\n")
        sys.exit(MISCONFIGURED)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@app.command()
def serve(
    processes: Annotated[int, typer.Option(min=1, help="How many web processes; one per processor core.")] = CORES,
) -> None:
    """Serve patients, counterparties' notices and business systems over HTTP."""
    from runtime.commands import serve as run

    logs.to("web")
    raise typer.Exit(run(_settings(), processes=processes))


@app.command()
def worker() -> None:
    """Work what is due: questions to channels and HIS, bookings, refunds, messages. As many as you like."""
    from runtime.commands import worker as run

    logs.to("worker")
    raise typer.Exit(run(_settings()))


@app.command()
def migrate() -> None:
    """Bring the database's tables up to date, in the owner's role (ZHENFU_OWNER_DATABASE_URL)."""
    from runtime.commands import migrate as run

    logs.to("migrate", human=True)
    typer.echo(run(_settings()))


@app.command()
def setup(
    file: Annotated[Path, typer.Argument(help="TOML; docs/setup-example.toml explains it.")],
) -> None:
    """Enter or change one institution: its HIS, merchant accounts, chat accounts and ways of paying."""
    from runtime.commands import setup as run

    logs.to("setup", human=True, level=50)
    typer.echo(run(_settings(), file))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 is any free one.")] = CONSOLE_PORT,
    folder: Annotated[Path | None, typer.Option(help="Where its database and keys lie.")] = None,
    lan: Annotated[str, typer.Option(help="Let real phones in: 1, or this computer's address in their network.")] = "",
    verbose: Annotated[bool, typer.Option(help="Show what the programs do here instead of in a file.")] = False,
) -> None:
    """The whole hospital on this computer: every program, every counterparty, one page to play with."""
    try:
        from runtime import sandbox as the_sandbox
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the sandbox needs packages that are not installed ({error.name}): make run, or requirements-sandbox.lock"
        ) from error

    place = (folder or the_sandbox.default_folder()).absolute()
    raise typer.Exit(the_sandbox.run(place, port=port, lan=lan, verbose=verbose))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For monitoring.")] = False,
    offline: Annotated[bool, typer.Option(help="Ask no HIS, no channel and no chat platform.")] = False,
    processes: Annotated[int, typer.Option(min=1, help="Web processes on all machines together.")] = CORES,
    workers: Annotated[int, typer.Option(min=1, help="Workers on all machines together.")] = 1,
) -> None:
    """Check settings, keys, clock, database, Redis, every HIS, channel and chat account, and say what to do."""
    from runtime.commands import doctor as run

    logs.to("doctor", human=True, level=50)
    _report(*run(as_json=as_json, offline=offline, processes=processes, workers=workers))


@hospital.command("check")
def hospital_check(
    institution: Annotated[str, typer.Argument(help="The institution's code.")],
    branch: Annotated[str | None, typer.Option(help="Of which branch; all of them when left out.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient id of a test patient with an unpaid bill.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Ask a HIS everything that can be asked without leaving a trace in its books."""
    from runtime.commands import hospital_check as run

    logs.to("hospital", human=True, level=50)
    _report(*run(_settings(), institution=institution, branch=branch, patient=patient, as_json=as_json))


_Institution = Annotated[str, typer.Option(help="The institution's code.")]
_AppId = Annotated[str | None, typer.Option(help="Which official account, where it has several.")]
_Replace = Annotated[bool, typer.Option("--replace", help="Take away buttons that are not ours.")]


@menu.command("publish")
def menu_publish(
    institution: _Institution,
    app_id: _AppId = None,
    replace: _Replace = False,
) -> None:
    """Put our menu into the account; followers see it within minutes."""
    _menu("publish", institution, app_id, replace=replace)


@menu.command("show")
def menu_show(institution: _Institution, app_id: _AppId = None) -> None:
    """Print the menu that the account has now."""
    _menu("show", institution, app_id)


@menu.command("remove")
def menu_remove(institution: _Institution, app_id: _AppId = None, replace: _Replace = False) -> None:
    """Take our menu out of the account."""
    _menu("remove", institution, app_id, replace=replace)


def _menu(action: str, institution: str, app_id: str | None, *, replace: bool = False) -> None:
    from runtime.commands import menu as run

    logs.to("menu", human=True, level=50)
    typer.echo(run(_settings(), action, institution=institution, app_id=app_id, replace=replace))


_Shown = Annotated[int, typer.Option("--show", min=0, help="How many places are printed.")]
_AsJson = Annotated[bool, typer.Option("--json", help="For monitoring.")]


@ledger.command("verify")
def ledger_verify(
    head: Annotated[
        list[str] | None, typer.Option(help="A head that was kept outside, institution:number:mac; repeat it.")
    ] = None,
    show: _Shown = 50,
    as_json: _AsJson = False,
) -> None:
    """Read every transfer and every seal again; exit code 1 when anything is not as it was written."""
    from runtime.ledger_commands import verify as run

    logs.to("ledger", human=True, level=50)
    _report(*run(_settings(), heads=head or [], shown_max=show, as_json=as_json))


@ledger.command("head")
def ledger_head() -> None:
    """Print the newest seal of every institution; keep it on a machine that is not ours to change."""
    from runtime.ledger_commands import heads as run

    logs.to("ledger", human=True, level=50)
    typer.echo(run(_settings()))


@app.command()
def invariants(show: _Shown = 20, as_json: _AsJson = False) -> None:
    """Check that every fen is accounted for, on the running system; exit code 1 when anything is off."""
    from runtime.ledger_commands import invariants as run

    logs.to("invariants", human=True, level=50)
    _report(*run(_settings(), shown_max=show, as_json=as_json))


@app.command()
def adopt(
    since: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day, in Shanghai, of the copy that was put back.")
    ],
) -> None:
    """After a restore, before the programs start: ask about all that is open, and find what is lost."""
    from runtime.adopt_commands import adopt as run

    logs.to("adopt", human=True, level=50)
    _report(*run(_settings(), since.date()))


_Code = Annotated[str, typer.Argument(help="By which colleagues know him: a staff number, never a name.")]
_Roles = Annotated[
    list[str] | None,
    typer.Option("--role", help="look, request_refund, approve_refund, work_cases, attest; repeat it."),
]


@staff.command("add")
def staff_add(
    institution: _Institution,
    code: _Code,
    name: Annotated[str, typer.Option(help="For the operator's own list; stored encrypted.")],
    role: _Roles = None,
) -> None:
    """Enter a member of staff and print his key, once."""
    from runtime.staff_commands import add as run

    logs.to("staff", human=True, level=50)
    typer.echo(run(_settings(), institution=institution, code=code, name=name, roles=role or []))


@staff.command("list")
def staff_list(institution: _Institution) -> None:
    """Print who there is and what each may do."""
    from runtime.staff_commands import listed as run

    logs.to("staff", human=True, level=50)
    typer.echo(run(_settings(), institution=institution))


@staff.command("key")
def staff_key(institution: _Institution, code: _Code) -> None:
    """Print another key, once; the old one ends."""
    from runtime.staff_commands import new_key as run

    logs.to("staff", human=True, level=50)
    typer.echo(run(_settings(), institution=institution, code=code))


@staff.command("roles")
def staff_roles(institution: _Institution, code: _Code, role: _Roles = None) -> None:
    """Say anew what a member of staff may do."""
    from runtime.staff_commands import set_roles as run

    logs.to("staff", human=True, level=50)
    typer.echo(run(_settings(), institution=institution, code=code, roles=role or []))


@staff.command("off")
def staff_off(institution: _Institution, code: _Code) -> None:
    """End a member of staff's key; what he did stays on record."""
    from runtime.staff_commands import off as run

    logs.to("staff", human=True, level=50)
    typer.echo(run(_settings(), institution=institution, code=code))


@app.command()
def label(
    institution: Annotated[str, typer.Option(help="The institution's code.")],
    bill: Annotated[str, typer.Option(help="The bill's number in the HIS.")],
    out: Annotated[Path, typer.Option(help="Where to write it: label.html prints itself, label.svg is the picture.")],
    branch: Annotated[str, typer.Option(help="Of which branch, where there is one.")] = "",
) -> None:
    """Write a label of 60 × 40 mm for a paper prescription: QR code, barcode, masked name, day."""
    from runtime.commands import label as run

    logs.to("label", human=True, level=50)
    typer.echo(run(_settings(), institution=institution, branch=branch, bill=bill, out=out))


@app.command()
def version() -> None:
    """Print which version this is."""
    try:
        number = installed_version("zhenfu")
    except PackageNotFoundError:
        number = "from a checkout that is not installed"
    typer.echo(f"zhenfu {number} (Python {sys.version.split()[0]})")


def _report(text: str, fine: bool) -> None:
    typer.echo(text)
    raise typer.Exit(0 if fine else 1)


def _settings() -> Settings:
    from runtime.settings import read_settings

    return read_settings()


if __name__ == "__main__":
    main()
