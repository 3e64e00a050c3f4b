"""What a connection goes through before and while it is used: login, filters, boot, pings.

Invariant: the secret never travels (MD5 challenge) and is in no message; until the filters stand only events of the
class system flow. Must not know: phases, reconnecting, callbacks.
"""

from __future__ import annotations

import asyncio
import hashlib

from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import ActionRefused, ControlPlaneError, LinkDown, OutcomeUnknown
from controlplane.edge.ami.actions import Challenge, Events, Filter, Login, Ping
from controlplane.edge.ami.config import AmiConfig
from controlplane.edge.ami.connection import FULLY_BOOTED, Connection

# While bytes keep coming an unanswered ping is no death (a long list, a flood), but not for ever.
PING_PATIENCE = 4


class LoginRefused(ControlPlaneError):
    """The server does not let us in as we are; trying again soon would not help."""


async def log_in(connection: Connection, config: AmiConfig) -> None:
    """Log in, set the filters, open the events. LoginRefused says who, where and what to do."""
    deadline_s = config.connect_timeout_s
    where = f"{config.username} at {config.host}:{config.port}"
    try:
        answer = await connection.perform(Challenge(), timeout_s=deadline_s, at_once=True)
    except OutcomeUnknown as error:
        raise LinkDown(
            f"{config.host}:{config.port} takes connections but does not speak AMI to us ({error}): "
            f"is this the port of manager.conf, and does [general] allow us?"
        ) from None
    challenge = answer.frame.get("Challenge")
    # MD5 is what AMI prescribes; the secret itself never travels.
    key = hashlib.md5((challenge + config.secret).encode(), usedforsecurity=False).hexdigest()
    # Class system: FullyBooted is sent to a session that logs in after the boot only when it gets this class (seen on
    # 22.10), and all other events wait until the filters stand.
    login = Login(username=config.username, key=key, events="system")
    try:
        await connection.perform(login, timeout_s=deadline_s, at_once=True)
    except ActionRefused as error:
        raise LoginRefused(
            f"login as {where} refused ({error.message}): check the secret file here, and in manager.conf there the "
            f"section [{config.username}]: secret, permit, deny, allowmultiplelogin"
        ) from None
    connection.admitted.set()
    try:
        for name in sorted({*config.event_filters, FULLY_BOOTED}) if config.event_filters else ():
            criteria = Filter(match_criteria=f"action(include),name({name}),method(none)")
            await connection.perform(criteria, timeout_s=deadline_s, at_once=True)
        await connection.perform(Events(event_mask="on"), timeout_s=deadline_s, at_once=True)
    except ActionRefused as error:
        raise LoginRefused(
            f"{where} may not filter events ({error}): give it the class system in write= of manager.conf"
        ) from None


async def wait_for_boot(connection: Connection, config: AmiConfig, log: FilteringBoundLogger) -> None:
    """FullyBooted comes right after the login, or later when Asterisk is still starting; pings watch meanwhile."""
    try:
        async with asyncio.timeout(config.boot_notice_s):
            await connection.booted.wait()
    except TimeoutError:
        log.warning(
            "ami.still_booting",
            waited_s=config.boot_notice_s,
            hint="Asterisk is still starting, or the account lacks the class system in read= of manager.conf",
        )
        await connection.booted.wait()


async def watch(connection: Connection, config: AmiConfig) -> None:
    """Ping until the peer does not answer: LinkDown after at most ping_interval_s + ping_timeout_s of silence."""
    loop = asyncio.get_running_loop()
    timeout_s = config.ping_timeout_s
    await connection.admitted.wait()  # until then the steps of the login have deadlines of their own
    while True:
        await asyncio.sleep(config.ping_interval_s)
        sent_at = loop.time()
        ping = await connection.submit(Ping(), timeout_s=timeout_s, at_once=True)
        while not ping.outcome.done():
            alive_at = loop.time() if connection.held_by_us else max(sent_at, connection.heard_at)
            ends_at = min(alive_at, sent_at + (PING_PATIENCE - 1) * timeout_s) + timeout_s
            if loop.time() >= ends_at:
                connection.forget(ping)
                raise LinkDown(f"no answer to a ping for {loop.time() - sent_at:.1f} s")
            await asyncio.wait([ping.outcome], timeout=ends_at - loop.time())
