"""Runs inside a site daemon's container: the calls of this site's Asterisk, until Asterisk dies; then prints them.

The list is a snapshot kept up by events to the last byte that the dying server wrote, so it is the list of the moment
before the kill. Prints one JSON object when the list is complete (`{"ready": true}`), and one at the end:
`{"died_ms": …, "calls": {"<caller number>": "<channel state>"}}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import structlog

from controlplane.edge.ami import actions
from controlplane.edge.ami.link import AmiConfig, AmiLink, Frame, Phase
from controlplane.edge.config import load

EVENTS = ("Newchannel", "Newstate", "Hangup")


class DeathList:
    """Channels by name: (caller number, state). Only legs that came in from a carrier or a site are calls."""

    def __init__(self) -> None:
        self.channels: dict[str, tuple[str, str]] = {}
        self.died = asyncio.Event()
        self.died_ms = 0

    def see(self, frame: Frame) -> None:
        channel = frame.get("Channel")
        if not channel.startswith(("PJSIP/carrier-", "PJSIP/site-")):
            return
        if frame.get("Event") == "Hangup":
            self.channels.pop(channel, None)
        else:
            self.channels[channel] = (frame.get("CallerIDNum"), frame.get("ChannelStateDesc"))

    def phase(self, phase: Phase, _: str) -> None:
        if phase is Phase.READY:
            sys.stdout.write('{"ready": true}\n')
            sys.stdout.flush()
        if phase is Phase.DOWN and self.channels and not self.died.is_set():
            self.died_ms = time.time_ns() // 1_000_000
            self.died.set()

    async def snapshot(self, link: AmiLink) -> None:
        for frame in (await link.call(actions.CoreShowChannels())).events:
            self.see(frame)


async def main() -> None:
    # Standard output is for the list alone.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = load(Path("/etc/controlplane/controlplane.toml"))
    ami = settings.host.ami
    if ami is None:
        sys.exit("no [ami] here")
    deaths = DeathList()
    config = AmiConfig(
        host=ami.host,
        port=ami.port,
        username=ami.username,
        secret=settings.secret(ami.secret_file),
        event_filters=EVENTS,
    )
    link = AmiLink(
        config,
        on_event=deaths.see,
        on_phase=deaths.phase,
        synchronise=deaths.snapshot,
        log=structlog.get_logger().bind(part="death-list"),
    )
    running = asyncio.create_task(link.run(), name="ami")
    await asyncio.wait_for(deaths.died.wait(), 120)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    calls = dict(deaths.channels.values())
    sys.stdout.write(json.dumps({"died_ms": deaths.died_ms, "calls": calls}) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
