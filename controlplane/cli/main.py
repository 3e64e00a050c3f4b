"""The command line. Each verb is a thin word for a command or a look; what it means is decided elsewhere.

Longer than other modules because it is a flat list: one short function for each verb, whose signature is its help.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import structlog
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controlplane import __version__
from controlplane.cli import desk, tables
from controlplane.cli.check import Finding, Grade, check
from controlplane.cli.exits import Exit, exit_for
from controlplane.cli.secrets import digest, hand_out, new_password
from controlplane.contract import command as commands
from controlplane.contract.command import Command
from controlplane.contract.errors import ConfigError, ControlPlaneError, LinkDown
from controlplane.contract.operation import Operation, OperationState, Refusal
from controlplane.edge.config import Settings, load
from controlplane.edge.journal import open_journal
from controlplane.edge.logs import logging_to_stderr
from controlplane.run.coordinator import Coordinator, load_plan
from controlplane.run.site import SiteDaemon, load_state

DEFAULT = Path("/etc/controlplane/controlplane.toml")
LIFE_S = 60
T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
agents = typer.Typer(no_args_is_help=True, help="Remote agents: enrol, revoke, list.")
app.add_typer(agents, name="agents")
out = Console()
err = Console(stderr=True)

Config = Annotated[Path, typer.Option("--config", envvar="CONTROLPLANE_CONFIG", help="controlplane.toml of this host.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the journal.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change; change nothing.")]
Override = Annotated[list[str] | None, typer.Option(help="Name of a rule that you break on purpose; may be repeated.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end of the operation.")]
Shares = Annotated[list[str], typer.Argument(help="NAME=PERCENT …, together 100.")]


def run() -> None:
    """The entry point: faults become one line and an exit code, never a trace."""
    try:
        app()
    except ConfigError as error:
        for fault in error.faults:
            err.print(f"[red]configuration[/] {escape(fault)}", highlight=False)
        sys.exit(Exit.FAULT)
    except ControlPlaneError as error:
        err.print(f"[red]fault[/] {escape(str(error))}", highlight=False)
        sys.exit(Exit.FAULT)


def _shares(pairs: list[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        if not text.isdigit() or name in found:
            raise typer.BadParameter(f"{pair!r}: write NAME=PERCENT, whole percents, each name once")
        found[name] = int(text)
    return found


def _command(settings: Settings, kind: type[Any], fields: dict[str, object]) -> Command:
    """A command by its own type's rules; what breaks them never leaves this machine."""
    form = kind.__struct_config__.tag
    body = msgspec.json.encode({"kind": form, **desk.stamp(settings, LIFE_S), **fields})
    command = commands.read(body)
    if isinstance(command, Refusal):
        raise typer.BadParameter(f"{command.rule}: {command.detail}")
    return command


class _Common(msgspec.Struct, frozen=True):
    config: Path
    reason: str
    dry_run: bool
    override: list[str] | None
    wait: bool
    as_json: bool


def _do(kind: type[Any], fields: dict[str, object], common: _Common, *, wait_s: float = 60.0) -> Operation | None:
    """Send a command, show how it goes, end with the exit code that says how it went."""
    settings = load(common.config)
    command = _shared(settings, kind, fields, common)
    return _end(_send(settings, command, common, wait_s), common)


def _shared(settings: Settings, kind: type[Any], fields: dict[str, object], common: _Common) -> Command:
    """A command with the options that most verbs have."""
    options = {"reason": common.reason, "dry_run": common.dry_run, "override": common.override or []}
    return _command(settings, kind, fields | options)


def _send(settings: Settings, command: Command, common: _Common, wait_s: float) -> Operation | None:
    """Send a command and show how it goes."""

    def progress(operation: Operation) -> None:
        if not common.as_json:
            tables.show_operation(out, operation)

    operation = asyncio.run(
        desk.send(settings, command, wait_s=wait_s if common.wait else desk.FIRST_WORD_S, on_progress=progress)
    )
    if common.as_json:
        _print_json(operation)
    elif operation is None:
        err.print("[red]no answer[/]: no coordinator leads, or it cannot reach this broker; see `controlplane status`")
    return operation


def _end(operation: Operation | None, common: _Common) -> Operation | None:
    """End with the exit code that says how it went."""
    code = exit_for(operation)
    if not common.wait and operation is not None and code is Exit.NO_ANSWER:
        code = Exit.DONE  # Accepted and running is all that was asked for.
    if code is not Exit.DONE:
        raise typer.Exit(code)
    return operation


def _print_json(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(value)) + b"\n")
    sys.stdout.flush()


def _state(settings: Settings) -> desk.FleetState:
    """The retained state of the fleet; what is left out of it is told on stderr."""
    state = asyncio.run(desk.read_state(settings))
    for topic in state.unreadable:
        err.print(f"[yellow]left out[/] what is retained on {escape(topic)} cannot be read", highlight=False)
    return state


@app.command()
def version() -> None:
    """The version of this program."""
    out.print(__version__)


@app.command()
def site(config: Config = DEFAULT) -> None:
    """Run the site daemon of this PBX host."""
    settings = load(config)
    if settings.host.site is None:
        raise ConfigError([f"{config}: site: missing; name the site of this PBX host"])
    with logging_to_stderr(settings.host.log_level):
        asyncio.run(_site(settings, settings.host.site))


async def _site(settings: Settings, name: str) -> None:
    log = structlog.get_logger().bind(site=name)
    async with open_journal(settings.path(settings.host.state_dir) / "site.sqlite") as journal:
        await SiteDaemon(settings, journal, await load_state(name, journal), log).run()


@app.command()
def coordinator(config: Config = DEFAULT) -> None:
    """Run a coordinator."""
    settings = load(config)
    if settings.host.host is None:
        raise ConfigError([f"{config}: host: missing; name this coordinator as fleet.toml does"])
    with logging_to_stderr(settings.host.log_level):
        asyncio.run(_coordinator(settings, settings.host.host))


async def _coordinator(settings: Settings, name: str) -> None:
    log = structlog.get_logger().bind(host=name)
    async with open_journal(settings.path(settings.host.state_dir) / "coordinator.sqlite") as journal:
        await Coordinator(settings, journal, await load_plan(journal), log).run()


@app.command("check")
def check_command(config: Config = DEFAULT, as_json: Json = False) -> None:
    """Look for everything that would keep this host from its work; all faults at once."""
    found = asyncio.run(_gather(config, show=not as_json))
    if as_json:
        _print_json(found)
    if any(f.grade is Grade.FAULT for f in found):
        raise typer.Exit(Exit.FAULT)


async def _gather(config: Path, *, show: bool) -> list[Finding]:
    colours = {Grade.OK: "green", Grade.WARNING: "yellow", Grade.FAULT: "red"}
    found = []
    async for finding in check(config):
        found.append(finding)
        if show:
            out.print(
                f"[{colours[finding.grade]}]{finding.grade:8}[/]{finding.what:14} {escape(finding.detail)}",
                highlight=False,
            )
    return found


@app.command()
def status(config: Config = DEFAULT, as_json: Json = False) -> None:
    """Who leads, how each site is, how calls are divided."""
    state = _state(load(config))
    _print_json(state) if as_json else tables.show_status(out, state)


@app.command()
def plan(config: Config = DEFAULT, as_json: Json = False) -> None:
    """The plan in force."""
    found = _state(load(config)).plan
    if found is None:
        err.print("[red]no plan[/]: no coordinator has led this fleet yet")
        raise typer.Exit(Exit.FAULT)
    _print_json(found) if as_json else tables.show_plan(out, found)


@app.command()
def history(
    config: Config = DEFAULT,
    as_json: Json = False,
    local: Annotated[bool, typer.Option("--local", help="The journal of this host instead of the operations.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
) -> None:
    """The latest operations of the fleet, or this host's journal."""
    settings = load(config)
    if local:
        _local_history(settings, limit, as_json)
        return
    operations = _state(settings).operations[-limit:]
    _print_json(operations) if as_json else tables.show_history(out, operations)


def _local_history(settings: Settings, limit: int, as_json: bool) -> None:
    name = "site.sqlite" if settings.host.site else "coordinator.sqlite"

    async def read() -> list[Any]:
        async with open_journal(settings.path(settings.host.state_dir) / name, read_only=True) as journal:
            return list(await journal.rows(limit=limit))

    rows = asyncio.run(read())
    if as_json:
        _print_json(rows)
        return
    table = Table("seq", "at", "kind", "id", "what")
    for row in rows:
        table.add_row(str(row.seq), row.at[:23], row.kind, row.id, escape(msgspec.json.encode(row.body).decode()[:160]))
    out.print(table)


@app.command()
def shift(
    service: str, shares: Shares, config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Divide the calls of SERVICE over sites, for example: shift claims nanchang=20 chengdu=80"""
    common = _Common(config, reason, dry_run, override, wait, as_json)
    _do(commands.Shift, {"service": service, "shares": _shares(shares)}, common)


@app.command()
def trunks(
    group: str, shares: Shares, config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Divide the outbound calls of GROUP over trunks, for example: trunks national nc-carrier=0 cd-carrier=100"""
    common = _Common(config, reason, dry_run, override, wait, as_json)
    _do(commands.Trunks, {"group": group, "shares": _shares(shares)}, common)


@app.command()
def failover(
    site: str, to: Annotated[str, typer.Option(help="The site that takes over.")],
    confirm_dead: Annotated[bool, typer.Option("--confirm-dead", help="You saw that the site is dead.")] = False,
    config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Take SITE out of service at once; its calls go to another."""
    common = _Common(config, reason, dry_run, override, wait, as_json)
    _do(commands.Failover, {"site": site, "to": to, "confirm_dead": confirm_dead}, common)


@app.command()
def restore(
    site: str, config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Bring SITE back, with the shares that its failover took."""
    _do(commands.Restore, {"site": site}, _Common(config, reason, dry_run, override, wait, as_json))


@app.command()
def undo(
    operation: str, config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Reset what OPERATION changed, where nobody changed it since."""
    _do(commands.Undo, {"operation": operation}, _Common(config, reason, dry_run, override, wait, as_json))


@app.command()
def cancel(operation: str, config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """End the running OPERATION and take back what it changed."""
    _do(commands.Cancel, {"operation": operation}, _Common(config, reason, False, None, True, as_json))


@app.command()
def pause(config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """Nothing starts by itself; a running operation holds at its next gate."""
    _do(commands.Pause, {}, _Common(config, reason, False, None, True, as_json))


@app.command()
def resume(config: Config = DEFAULT, reason: Reason = "", as_json: Json = False) -> None:
    """End a pause."""
    _do(commands.Resume, {}, _Common(config, reason, False, None, True, as_json))


@app.command()
def takeover(
    host: str, config: Config = DEFAULT, reason: Reason = "", wait: Wait = True, as_json: Json = False
) -> None:
    """Move authority to the coordinator on HOST."""
    _do(commands.Takeover, {"host": host}, _Common(config, reason, False, None, wait, as_json))


@app.command()
def call(
    service: str, count: Annotated[int, typer.Option(min=1, max=1000)] = 10,
    rate: Annotated[float, typer.Option(min=0.1, max=100, help="Calls a second.")] = 5.0,
    site: Annotated[str | None, typer.Option(help="Where they enter; the first home site by default.")] = None,
    config: Config = DEFAULT, reason: Reason = "", as_json: Json = False,
) -> None:  # fmt: skip
    """Place synthetic calls for SERVICE: which site answered each, how fast."""
    from controlplane.cli.calls import place_and_watch

    settings = load(config)
    fields: dict[str, object] = {"service": service, "count": count, "rate": rate, "reason": reason}
    command = _command(settings, commands.Call, fields | ({"site": site} if site else {}))
    operation, seen = asyncio.run(place_and_watch(settings, command, wait_s=count / rate + 30))
    if as_json:
        _print_json({"operation": operation, "calls": seen})
    else:
        table = Table("call", "decided", "arrived at", "set up in")
        for one in seen:
            took = f"{one.setup_ms} ms" if one.setup_ms is not None else "-"
            table.add_row(one.call, one.target or "-", one.site or "[red]nowhere[/]", took)
        out.print(table)
        if operation is not None:
            tables.show_operation(out, operation)
    if (code := exit_for(operation)) is not Exit.DONE:
        raise typer.Exit(code)


@agents.command("list")
def agents_list(config: Config = DEFAULT, as_json: Json = False) -> None:
    """The remote agents: where enrolled, registered or not, in which queues."""
    state = _state(load(config))
    rows = {
        agent: {
            "name": a.name,
            "site": a.site,
            "seat": r.seats.get(agent) if (r := state.reports.get(a.site)) else None,
        }
        for agent, a in (state.plan.agents if state.plan else {}).items()
    }
    if as_json:
        _print_json(rows)
        return
    table = Table("agent", "name", "site", "registered", "queues")
    for agent, row in rows.items():
        seat: Any = row["seat"]
        registered = "[red]unknown[/]" if seat is None else str(seat.contacts) if seat.contacts else "no"
        table.add_row(
            agent, escape(str(row["name"])), str(row["site"]), registered, ", ".join(seat.queues) if seat else ""
        )
    out.print(table)


@agents.command("enrol")
def agents_enrol(
    agent: str, name: Annotated[str, typer.Option(help="The person's name.")],
    site: Annotated[str, typer.Option(help="The site whose endpoint the phone registers at.")],
    service: Annotated[list[str], typer.Option(help="A service to serve; may be repeated.")],
    password_file: Annotated[Path, typer.Option(help="Where the new password goes (mode 600); must not exist.")],
    penalty: Annotated[int, typer.Option(min=0, max=100)] = 0,
    wait_s: Annotated[int, typer.Option(min=0, max=3600, help="How long to wait for the phone to register.")] = 120,
    config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Make the endpoint of one remote agent; the password stays in the file, only its digest is sent."""
    common = _Common(config, reason, dry_run, override, wait, as_json)
    settings, password = load(config), new_password()
    fields: dict[str, object] = {
        "agent": agent, "name": name, "site": site, "services": service, "penalty": penalty, "wait_s": wait_s,
        "digest": digest(agent, password),
    }  # fmt: skip
    command = _shared(settings, commands.AgentsEnrol, fields, common)
    if dry_run:
        _end(_send(settings, command, common, wait_s + 60), common)
        return
    try:
        hand_out(password_file, password)
    except OSError as error:
        raise typer.BadParameter(f"--password-file {password_file}: {error.strerror}") from None
    try:
        operation = _send(settings, command, common, wait_s + 60)
    except LinkDown:
        _take_back(password_file, "nothing was sent")
        raise
    if operation is not None and operation.state is OperationState.REFUSED:
        _take_back(password_file, "the enrolment was refused")
    _end(operation, common)


def _take_back(password_file: Path, why: str) -> None:
    """The file of a password that nothing will ever know; so the same command can be given again."""
    password_file.unlink(missing_ok=True)
    err.print(f"[yellow]{why}[/]: {escape(str(password_file))} is removed again", highlight=False)


@agents.command("revoke")
def agents_revoke(
    agent: str, config: Config = DEFAULT, reason: Reason = "", dry_run: DryRun = False,
    override: Override = None, wait: Wait = True, as_json: Json = False,
) -> None:  # fmt: skip
    """Take the membership, endpoint and registration of an agent away."""
    _do(commands.AgentsRevoke, {"agent": agent}, _Common(config, reason, dry_run, override, wait, as_json))
