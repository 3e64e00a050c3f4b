"""`controlplane check`: what would keep this host from doing its work, all at once, each with what to do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from pathlib import Path

import msgspec
import structlog

from controlplane.cli.desk import broker_fault
from controlplane.contract.errors import ActionRefused, ConfigError, ControlPlaneError
from controlplane.contract.fleet import warnings
from controlplane.edge.ami import actions
from controlplane.edge.ami.link import AmiConfig, AmiLink, Phase
from controlplane.edge.config import Settings, load
from controlplane.run.asterisk import is_held

#: The contexts of dialplans/controlplane.conf that calls come in by.
CONTEXTS = ("cp-from-carrier", "cp-from-site", "cp-from-agent", "cp-syn-svc", "cp-syn-out", "cp-syn-agent")
_AMI_S = 6.0


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    grade: Grade
    what: str
    detail: str


async def check(path: Path) -> AsyncIterator[Finding]:
    """Everything that can be looked at from this host. Configuration first: with faults there, nothing else is tried."""
    try:
        settings = load(path)
    except ConfigError as error:
        for fault in error.faults:
            yield Finding(Grade.FAULT, "configuration", fault)
        return
    yield Finding(Grade.OK, "configuration", f"fleet {settings.fleet.fleet}, hash {settings.fleet.hash}")
    for warning in warnings(settings.fleet):
        yield Finding(Grade.WARNING, "ingress", warning)
    if settings.host.site or settings.host.host:
        yield _disk(settings.path(settings.host.state_dir))
    broker = settings.host.broker
    if refused := await broker_fault(settings):
        yield Finding(Grade.FAULT, "broker", refused)
    else:
        yield Finding(Grade.OK, "broker", f"{broker.account} logs in at {broker.host}:{broker.port}")
    if settings.host.ami is not None:
        async for finding in _ami(settings):
            yield finding


def _disk(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding(Grade.FAULT, "disk", f"state_dir {folder} is not there; make it, owned by the daemon's user")
    if not os.access(folder, os.W_OK):
        return Finding(Grade.FAULT, "disk", f"state_dir {folder} cannot be written by this user")
    space = os.statvfs(folder)
    free_mb = space.f_bavail * space.f_frsize // 1_000_000
    if free_mb < 200:
        return Finding(Grade.FAULT, "disk", f"{free_mb} MB are free at {folder}; the journal needs 200")
    return Finding(Grade.OK, "disk", f"{free_mb} MB are free at {folder}")


async def _ami(settings: Settings) -> AsyncIterator[Finding]:
    ami = settings.host.ami
    if ami is None:
        return
    refused = asyncio.get_running_loop().create_future()
    ready = asyncio.Event()

    def on_phase(phase: Phase, detail: str) -> None:
        if phase is Phase.READY:
            ready.set()
        elif phase is Phase.DOWN and not refused.done():
            refused.set_result(detail)

    async def nothing(_: AmiLink) -> None:
        return

    config = AmiConfig(host=ami.host, port=ami.port, username=ami.username, secret=settings.secret(ami.secret_file))
    quiet = structlog.wrap_logger(structlog.PrintLogger(), processors=[_drop])
    link = AmiLink(config, on_event=lambda _: None, on_phase=on_phase, synchronise=nothing, log=quiet)
    running = asyncio.create_task(link.run(), name="check-ami")
    waits = [asyncio.create_task(ready.wait()), asyncio.ensure_future(refused)]
    try:
        await asyncio.wait(waits, timeout=_AMI_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.is_set():
            why = refused.result() if refused.done() else f"no answer within {_AMI_S:.0f} s"
            yield Finding(Grade.FAULT, "AMI", why)
            return
        yield Finding(Grade.OK, "AMI", f"{ami.username} logs in at {ami.host}:{ami.port}")
        for look in (_dialplan, _hold):
            yield await _looked(look, link)
    finally:
        for task in (running, *waits):
            task.cancel()
        await asyncio.gather(running, *waits, return_exceptions=True)


async def _looked(look: Callable[[AmiLink], Awaitable[Finding]], link: AmiLink) -> Finding:
    try:
        return await look(link)
    except ControlPlaneError as error:
        return Finding(Grade.FAULT, "Asterisk", str(error))


async def _dialplan(link: AmiLink) -> Finding:
    missing = []
    for context in CONTEXTS:
        try:
            await link.call(actions.ShowDialPlan(context=context))
        except ActionRefused:
            missing.append(context)
    if missing:
        return Finding(
            Grade.FAULT, "dialplan", f"Asterisk has no context {', '.join(missing)}: include dialplans/controlplane.conf "
            "in extensions.conf and run `dialplan reload`",
        )  # fmt: skip
    return Finding(Grade.OK, "dialplan", f"{len(CONTEXTS)} contexts are loaded")


async def _hold(link: AmiLink) -> Finding:
    if await is_held(link):
        return Finding(Grade.WARNING, "hands-off", "AstDB cp/hold is set: nothing is written here until it is removed")
    return Finding(Grade.OK, "hands-off", "nobody holds this site")


def _drop(*_: object) -> str:
    raise structlog.DropEvent
