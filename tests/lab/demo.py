"""The main job, shown: `make demo`.

Two sites under real calls: split, shift, outbound trunks, a home agent, failover alive and dead, daemons dead. Every
figure about calls is from the carrier's ledger and the agents' phones, never from the control plane. Ends non-zero when
anything is lost or off, and writes build/demo/report.json.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from controlplane.cli.secrets import digest, new_password
from controlplane.contract import command as commands
from controlplane.contract.key import parse_label
from controlplane.contract.report import CallEventKind
from tests.lab import kill
from tests.lab.commander import Commander
from tests.lab.lab import Lab
from tests.lab.layout import AGENT_LETTER, SERVICES
from tests.lab.shell import LabError
from tests.lab.world import Call, Outcome

CLAIMS = SERVICES["claims"]
RATE = 10.0
TALK_MS = 3000
console = Console(highlight=False)


class Demo:
    """The steps, in order, and what they found."""

    def __init__(self, lab: Lab, desk: Commander) -> None:
        self.lab = lab
        self.desk = desk
        self.report: dict[str, Any] = {}
        self.off: list[str] = []
        self.calls: list[Call] = []
        self.cut: set[str] = set()

    async def step(self, title: str, work: Callable[[], Awaitable[str]]) -> None:
        """Run a step and say how it went."""
        begun = time.monotonic()
        with console.status(title):
            said = await work()
        console.print(f"[green]✓[/] {title}  [dim]{time.monotonic() - begun:.1f} s[/]  {said}")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.off.append(what)
            console.print(f"[red]✗ {what}[/]")

    async def run(self) -> None:
        await self.step("two sites, broker, coordinator and the world are up", self.ready)
        await self.step("claims: 200 calls by a division of 60/40", self.split)
        await self.step(f"claims to 20/80 under {RATE:.0f} calls/s", self.shift)
        await self.step("outbound: trunk group national from nanchang's trunk to chengdu's", self.outbound)
        await self.step("a home agent: enrolled, registered, rung", self.agent)
        await self.step(f"failover of nanchang, alive, under {RATE:.0f} calls/s", self.failover_alive)
        await self.step("restore of nanchang", self.restore)
        await self.step(
            f"SIGKILL of nanchang's Asterisk and daemon under {RATE:.0f} calls/s, then failover", self.failover_dead
        )
        await self.step("nanchang started again and restored", self.restore_dead)
        await self.step(f"SIGKILL of every daemon under {RATE:.0f} calls/s", self.daemons_dead)
        await self.step("daemons back", self.daemons_back)
        self._count()

    # -- steps

    async def ready(self) -> str:
        await self.desk.settled()
        await self.desk.done(commands.Shift, service="claims", shares={"nanchang": 60, "chengdu": 40})
        return f"plan {self._key()}"

    async def split(self) -> str:
        planned = {"nanchang": 60, "chengdu": 40}
        # The wanted division is in force already; a division that is new begins its count at its first call.
        await self.desk.done(commands.Shift, service="claims", shares={"nanchang": 59, "chengdu": 41})
        await self.desk.done(commands.Shift, service="claims", shares=planned)
        calls = await self._place(200)
        seen = _sites_of(calls)
        wanted = {site: share * 2 for site, share in planned.items()}
        self.report["split"] = {"planned": wanted, "seen": seen}
        self.expect(all(abs(seen.get(s, 0) - n) <= 1 for s, n in wanted.items()), f"split {seen}, planned {wanted}")
        return f"planned {wanted}, answered {seen}"

    async def shift(self) -> str:
        async with _Load(self) as load:
            await asyncio.sleep(3)
            published_ms = time.time_ns() // 1_000_000
            await self.desk.done(commands.Shift, service="claims", shares={"nanchang": 20, "chengdu": 80})
            await asyncio.sleep(6)
            since = self._since("claims")
        routes = [
            (site, e)
            for site, e in self.desk.events
            if e.kind is CallEventKind.ROUTE and e.id == "claims" and not e.synthetic and e.at_ms >= published_ms
        ]
        new = [e.at_ms for _, e in routes if e.plan == since]
        late = [
            e.call for site, e in routes
            if (acked := self._acknowledged_ms(site, since)) and e.at_ms > acked and e.plan != since
        ]  # fmt: skip
        first_ms = min(new) - published_ms if new else None
        self.report["shift"] = {"publish_to_first_call_ms": first_ms, "calls_on_old_plan_after_ack": len(late)}
        self.expect(first_ms is not None, "no call was seen on the new plan")
        self.expect(
            not late, f"{len(late)} calls went by the old plan after the site had applied the new one: {late[:5]}"
        )
        return f"first call on the new plan {first_ms} ms after the command, {len(late)} late, {load.seen}"

    async def outbound(self) -> str:
        planned = {"nc-carrier": 0, "cd-carrier": 100}
        before = await self._outbound(20)
        await self.desk.done(commands.Trunks, group="national", shares=planned)
        after = await self._outbound(100)
        trunk_of = {"nanchang": "nc-carrier", "chengdu": "cd-carrier"}
        seen = dict.fromkeys(planned, 0) | dict(Counter(trunk_of.get(c.site, "?") for c in after))
        self.report["outbound"] = {"planned": planned, "seen": seen}
        self.expect({c.site for c in before} == {"nanchang"}, f"before: {Counter(c.site for c in before)}")
        self.expect(seen == planned, f"outbound {seen}, planned {planned}")
        self.expect(all(c.outcome is Outcome.ANSWERED for c in (*before, *after)), "an outbound call was not answered")
        return f"100 calls by {seen}"

    async def agent(self) -> str:
        password = new_password()
        # The phone keeps trying while the seat is made, as one that was configured before.
        published_ms = time.time_ns() // 1_000_000
        enrolling = asyncio.create_task(
            self.desk.done(
                commands.AgentsEnrol, agent="home01", name="Li Wei 李伟", site="chengdu", services=["claims"],
                digest=digest("home01", password), wait_s=60,
            )
        )  # fmt: skip
        await asyncio.to_thread(self.lab.world.register, "home01", password=password, site="chengdu", within_s=20.0)
        operation = await enrolling
        self.expect(not operation.unproven, f"enrolment unproven: {operation.unproven}")
        calls = await self._place(120, rate=20.0)
        rung = sorted(t.answered_ms for c in calls for t in c.talks if t.agent == "home01")
        first_ms = rung[0] - published_ms if rung else None
        self.report["agent"] = {"enrol_to_first_call_ms": first_ms}
        self.expect(first_ms is not None, "the home agent got no call")
        return f"registered, test call answered; {len(rung)} calls, the first {first_ms} ms after the command"

    async def failover_alive(self) -> str:
        async with _Load(self) as load:
            await asyncio.sleep(4)
            operation = await self.desk.done(commands.Failover, site="nanchang", to="chengdu", reason="demo")
            done_ms = time.time_ns() // 1_000_000
            await asyncio.sleep(8)
        stray = [c.number for c in load.calls if (c.placed_ms or 0) > done_ms and _site_of(c) == "nanchang"]
        self.expect(not stray, f"calls answered at nanchang after its failover was done: {stray[:5]}")
        self.expect(not operation.unproven, f"failover unproven: {operation.unproven}")
        return load.seen

    async def restore(self) -> str:
        await self.desk.done(commands.Restore, site="nanchang", reason="demo")
        calls = await self._place(20)
        self.expect(_sites_of(calls).get("nanchang", 0) > 0, "no call at nanchang after its restore")
        return f"20 calls by {_sites_of(calls)}"

    async def failover_dead(self) -> str:
        async with _Load(self) as load:
            await asyncio.sleep(5)
            death = await asyncio.to_thread(kill.host, self.lab, "nanchang")
            operation = await self.desk.done(commands.Failover, site="nanchang", to="chengdu", confirm_dead=True)
            await asyncio.sleep(12)
        verdict = kill.judge(death, load.calls, "nanchang", AGENT_LETTER["nanchang"])
        self.cut |= verdict.cut
        self.expect(not verdict.unlisted, f"cut, and not on nanchang's list: {sorted(verdict.unlisted)[:5]}")
        self.expect(not verdict.unexplained, f"on the list, neither cut nor saved: {sorted(verdict.unexplained)[:5]}")
        self.expect(bool(operation.unproven), "failover of a dead site claimed that everything was proven")
        unproven = "".join(f"\n    unproven: {line}" for line in operation.unproven)
        return (
            f"{len(verdict.listed)} callers on nanchang's list: {len(verdict.cut)} cut, {len(verdict.saved)} saved by the "
            f"carrier's second way in, {len(verdict.ended)} just ended; {load.seen}{unproven}"
        )

    async def restore_dead(self) -> str:
        await asyncio.to_thread(self.lab.start, "nanchang", "nanchang-daemon")
        await self.desk.settled(within_s=40.0)
        await self.desk.done(commands.Restore, site="nanchang", reason="demo")
        await self.desk.done(commands.Shift, service="claims", shares={"nanchang": 60, "chengdu": 40})

        async def at_nanchang() -> bool:
            return _sites_of(await self._place(10)).get("nanchang", 0) > 0

        # The carrier comes back when nanchang answers its OPTIONS again.
        for _ in range(6):
            if await at_nanchang():
                return "calls are answered at nanchang again"
        self.expect(False, "no call at nanchang after its restore")
        return ""

    async def daemons_dead(self) -> str:
        await asyncio.to_thread(self.lab.kill, "coordinator", "nanchang-daemon", "chengdu-daemon")
        calls = await self._place(150)
        outcomes = Counter(c.outcome for c in calls)
        answered = outcomes[Outcome.AGENT]
        self.report["daemons_dead"] = {"placed": len(calls), "answered": answered, "lost": outcomes[Outcome.LOST]}
        self.expect(answered == len(calls), f"with all daemons dead: {dict(outcomes)}")
        return f"{len(calls)} calls, {answered} answered by agents at {_sites_of(calls)}"

    async def daemons_back(self) -> str:
        await asyncio.to_thread(self.lab.start, "nanchang-daemon", "chengdu-daemon", "coordinator")
        before = self.desk.plan
        await self.desk.wait_for(
            "a coordinator leads under a higher epoch",
            lambda: bool(self.desk.plan and before and self.desk.plan.key.epoch > before.key.epoch),
            within_s=30,
        )
        await self.desk.settled(within_s=30.0)
        self.expect(bool(before and self.desk.plan and before.services == self.desk.plan.services), "the plan changed")
        return f"plan {self._key()}, as it was"

    # -- parts

    def _count(self) -> None:
        outcomes = Counter("cut" if c.number in self.cut else str(c.outcome) for c in self.calls)
        lost = outcomes["lost"] + outcomes["open"]
        self.report["calls"] = {
            "placed": len(self.calls),
            "answered": outcomes["agent"],
            "waited": outcomes["queue"],
            "announcement": outcomes["announcement"],
            "cut": outcomes["cut"],
            "lost": lost,
        }
        for call in self.calls:
            if call.number not in self.cut and call.outcome in (Outcome.LOST, Outcome.OPEN):
                console.print(f"[red]lost[/] {msgspec.to_builtins(call)}")
        self.expect(lost == 0, f"{lost} calls were lost")

    async def _place(self, count: int, *, rate: float = RATE) -> list[Call]:
        calls = await asyncio.to_thread(self.lab.world.place, CLAIMS, count=count, rate=rate, talk_ms=TALK_MS)
        self.calls += calls
        self.expect(len(calls) == count, f"{len(calls)} calls are in the ledger, {count} were placed")
        return calls

    async def _outbound(self, count: int) -> list[Call]:
        world = self.lab.world
        return await asyncio.to_thread(
            world.outbound, "n01", site="nanchang", number="02112340000", count=count, rate=RATE
        )

    def _since(self, service: str) -> str:
        return self.desk.plan.services[service].since if self.desk.plan else ""

    def _acknowledged_ms(self, site: str, label: str) -> float | None:
        """When a site first reported that it had applied this plan or a later one, epoch milliseconds."""
        wanted = parse_label(label)
        times = [
            r.applied.at.timestamp() * 1000
            for s, r in self.desk.applied
            if s == site and r.applied is not None and wanted is not None and r.applied.key >= wanted
        ]
        return min(times, default=None)

    def _key(self) -> str:
        return self.desk.plan.key.label if self.desk.plan else "none"


class _Load:
    """Callers in the background for as long as the block runs; then `calls` is their ledger."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._context = demo.lab.world.load(CLAIMS, rate=RATE, talk_ms=TALK_MS)
        self.calls: list[Call] = []

    async def __aenter__(self) -> _Load:
        self._batch = await asyncio.to_thread(self._context.__enter__)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await asyncio.to_thread(self._context.__exit__, *exc)
        self.calls = await asyncio.to_thread(self._demo.lab.world.ledger, self._batch)
        self._demo.calls += self.calls

    @property
    def seen(self) -> str:
        return f"{len(self.calls)} calls, answered at {_sites_of(self.calls)}"


def _site_of(call: Call) -> str:
    """Where an agent's phone answered the call."""
    letters = {letter: site for site, letter in AGENT_LETTER.items()}
    if not call.talks:
        return "nobody"
    # The home agent is enrolled at chengdu.
    return letters.get(call.talks[-1].agent[0], "chengdu")


def _sites_of(calls: Iterable[Call]) -> dict[str, int]:
    return dict(sorted(Counter(_site_of(c) for c in calls).items()))


async def main(checkout: Path) -> int:
    lab = Lab(checkout)
    begun = time.monotonic()
    lab.ensure_engine()
    lab.cleanup()
    lab.up()
    desk = Commander(lab)
    demo = Demo(lab, desk)
    try:
        async with desk.listening():
            await demo.run()
    except LabError as error:
        demo.off.append(str(error))
        console.print(f"[red]✗ {error}[/]")
    folder = checkout / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(demo.report)) + b"\n")
    _summary(demo, time.monotonic() - begun)
    lab.down()
    return 1 if demo.off else 0


def _summary(demo: Demo, took_s: float) -> None:
    table = Table("what", "figure")
    for part, facts in demo.report.items():
        for name, fact in facts.items():
            table.add_row(f"{part}.{name}", str(fact))
    console.print(table)
    word = "[green]nothing was lost or off[/]" if not demo.off else f"[red]{len(demo.off)} things are off[/]"
    console.print(f"{word}; {took_s:.0f} s; build/demo/report.json")
    for line in demo.off:
        console.print(f"[red]✗[/] {line}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(Path.cwd())))
