"""A fleet in memory for the tests of the coordinator: the real cores of coordinators and sites, a bus that delivers at
once and in order, an Asterisk that is a dictionary, and a clock that only moves when it is told to.

It checks the laws at every step: a plan is on disk before it is published, a key never falls and never names two
contents, the shares of each division add up to 100.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections import deque
from typing import Any

import msgspec

from controlplane.contract.command import KINDS, Command
from controlplane.contract.fleet import AuthorityRule, Fleet, Group, Ingress, Service, Trigger, Trunk, faults
from controlplane.contract.fleet import Site as FleetSite
from controlplane.contract.operation import Operation, OperationState
from controlplane.contract.plan import Plan
from controlplane.contract.report import CallEvent, CallEventKind, CallEvents, Probe, ProbeKind, Report, SeatState
from controlplane.fleet import core
from controlplane.fleet import state as fleet_state
from controlplane.fleet.state import (
    BeaconSeen,
    ClaimCame,
    CommandCame,
    EventsCame,
    Input,
    LinkLost,
    Note,
    Now,
    PlanSeen,
    PromiseCame,
    PublishBeacon,
    PublishClaim,
    PublishOperation,
    PublishPlan,
    ReplyTo,
    ReportCame,
    Role,
    SavePlan,
    SendProbe,
    State,
    Tick,
)
from controlplane.site import core as site_core
from controlplane.site.diff import AddMember, Delete, Observed, Put, RemoveMember, Step
from controlplane.site.table import LETTERS

EPOCH = dt.datetime(2026, 3, 1, 9, 0, tzinfo=dt.UTC)
DIGEST = "0123456789abcdef0123456789abcdef"
FLEET = Fleet(
    fleet="hotline",
    authority=AuthorityRule("fixed", "coordinator", ("coordinator2",)),
    sites={"nanchang": FleetSite(100), "chengdu": FleetSite(100)},
    services={
        "claims": Service(("95556",), ("nanchang", "chengdu"), {"nanchang": 60, "chengdu": 40}),
        "enquiries": Service(("95557",), ("nanchang", "chengdu"), {"nanchang": 100, "chengdu": 0}),
    },
    trunks={
        "nc-carrier": Trunk("nanchang", "carrier", 200, "02100000000"),
        "cd-carrier": Trunk("chengdu", "carrier", 200, "02100000000"),
    },
    groups={"national": Group(("0",), {"nc-carrier": 100, "cd-carrier": 0})},
    ingress={
        did: Ingress(("nc-carrier", "cd-carrier"), triggers=(Trigger.OPTIONS, Trigger.TIMEOUT))
        for did in ("95556", "95557")
    },
)
#: The fields of one good command of each kind.
FIELDS: dict[str, dict[str, Any]] = {
    "shift": {"service": "claims", "shares": {"nanchang": 20, "chengdu": 80}},
    "trunks": {"group": "national", "shares": {"nc-carrier": 0, "cd-carrier": 100}},
    "failover": {"site": "nanchang", "to": "chengdu"},
    "restore": {"site": "nanchang"},
    "agents.enrol": {
        "agent": "home01", "name": "王芳", "site": "chengdu", "services": ["claims"], "digest": DIGEST, "penalty": 5,
    },
    "agents.revoke": {"agent": "home01"},
    "undo": {"operation": str(uuid.UUID(int=7))},
    "cancel": {"operation": str(uuid.UUID(int=7))},
    "pause": {},
    "resume": {},
    "takeover": {"host": "coordinator2"},
    "call": {"service": "claims", "count": 4, "rate": 2.0},
}  # fmt: skip


def fields_of(kind: str, *, wall: dt.datetime = EPOCH, life_s: float = 60, **fields: Any) -> dict[str, Any]:
    """A command as plain JSON values."""
    common = {
        "kind": kind,
        "id": str(uuid.uuid4()),
        "issued_by": "anna",
        "issued_at": wall.isoformat(),
        "expires_at": (wall + dt.timedelta(seconds=life_s)).isoformat(),
    }
    return common | (FIELDS[kind] if not fields else {}) | fields


def body_of(kind: str, **fields: Any) -> bytes:
    return json.dumps(fields_of(kind, **fields)).encode()


def command_of(kind: str, **fields: Any) -> Command:
    command = msgspec.convert(fields_of(kind, **fields), Command)
    assert isinstance(command, KINDS)
    return command


class SiteHost:
    """A site: its daemon's core, and an Asterisk that keeps what it is given. `deaf`: slices do not reach it.
    `stubborn`: its Asterisk keeps nothing. `stale`: AstDB keys by which its dialplan still routes although the new value
    was read back. `no_endpoint`: its Asterisk does not show the endpoints that are in AstDB."""

    def __init__(self, name: str, world: World) -> None:
        self.world = world
        self.state = site_core.State(site=name)
        self.alive = True
        self.deaf = False
        self.stubborn = False
        self.astdb: dict[str, str] = {}
        self.members: dict[tuple[str, str], Any] = {}
        self.phones: set[str] = set()
        self.sequence = 0
        self.probes: list[Probe] = []
        self.stale: dict[str, str] = {}
        self.no_endpoint = False
        self.fleet_hash: str | None = None
        self.batches = 0
        self.counters: dict[str, int] = {}

    def hear(self, event: site_core.Input) -> None:
        if not self.alive or (self.deaf and isinstance(event, site_core.SliceArrived | site_core.PlanArrived)):
            return
        self.state, effects = site_core.step(self.state, event)
        for effect in effects:
            match effect:
                case site_core.SendPromise(promise):
                    self.world.post_all(PromiseCame(promise))
                case site_core.Look():
                    self.look()
                case site_core.Do(steps):
                    for step in steps:
                        self.do(step)
                    self.look()
                case site_core.SendReport():
                    self.report()
                case _:
                    pass

    def look(self) -> None:
        observed = Observed(dict(self.astdb), dict(self.members))
        self.hear(site_core.Looked(observed, hold_file=False, at=self.world.wall))

    def do(self, step: Step) -> None:
        if self.stubborn:
            return
        match step:
            case Put(key, value):
                self.astdb[key] = value
            case Delete(key):
                self.astdb.pop(key, None)
            case AddMember(queue, interface, member):
                self.members[queue, interface] = member
            case RemoveMember(queue, interface):
                self.members.pop((queue, interface), None)
            case _:
                pass

    def hold(self) -> None:
        """An engineer says hands off."""
        self.astdb["cp/hold"] = "anna"
        self.look()

    def report(self) -> None:
        if not self.alive:
            return
        self.sequence += 1
        agents = [key.rsplit("/", 1)[1] for key in self.astdb if key.startswith("cp/endpoint/")]
        seats = {
            a: SeatState(
                not self.no_endpoint, int(a in self.phones), tuple(q for q, i in self.members if i == f"PJSIP/{a}")
            )
            for a in agents
        }
        report = Report(
            self.state.site, "one", self.sequence, self.world.wall, 0, self.fleet_hash or self.world.fleet.hash, "ready",
            self.state.applied, self.state.promised, self.state.hands_off, self.state.trouble, seats=seats,
        )  # fmt: skip
        self.world.reports[self.state.site] = report
        self.world.post_all(ReportCame(report, retained=False))

    def probe(self, probe: Probe) -> None:
        self.probes.append(probe)
        if not self.alive:
            return
        for number in range(1, probe.count + 1):
            call = f"{probe.call}-{number}"
            if probe.kind is ProbeKind.AGENT:
                if probe.id in self.phones and not self.world.lose_calls:
                    self.world.events(self.state.site, CallEventKind.ANSWERED, call)
                continue
            target = probe.force or self.route(probe, call)
            if target is None or self.world.lose_calls:
                continue
            if probe.kind is ProbeKind.OUTBOUND:
                self.world.events(self.state.site, CallEventKind.ANSWERED, call)
            elif self.world.sites[target].alive:
                self.world.events(target, CallEventKind.ARRIVE, call)

    def route(self, probe: Probe, call: str) -> str | None:
        """What the dialplan does with a call that is not forced: the next slot of the table that AstDB holds decides, and
        ROUTE says so; a site that cannot be had gives the call to the next in order."""
        key = f"cp/{probe.kind.value}/{probe.id}"
        parts = self.stale.get(key, self.astdb.get(key, "")).split(":")
        if len(parts) != 5:
            return None
        _, _, label, names, table = parts
        order = names.split(",")
        slot = self.counters.get(key, 0)
        self.counters[key] = slot + 1
        target = order[LETTERS.index(table[slot % len(table)])]
        self.world.events(
            self.state.site, CallEventKind.ROUTE, call,
            plan=label, call_kind=probe.kind.value, id=probe.id, target=target,
        )  # fmt: skip
        if probe.kind is ProbeKind.OUTBOUND:
            return target
        return next((t for t in (target, *order) if self.world.sites[t].alive), None)


class World:
    """Sites and coordinators on one bus."""

    def __init__(self, *, hosts: tuple[str, ...] = ("coordinator",), fleet: Fleet = FLEET) -> None:
        assert faults(fleet) == []
        self.fleet = fleet
        self.mono = 1000.0
        self.posted: deque[tuple[str, Input]] = deque()
        self.hosts: dict[str, State] = {}
        self.disk: dict[str, Plan] = {}
        self.saved: dict[str, Plan] = {}
        #: How far the wall clock was put forward or back.
        self.jump_s = 0.0
        self.log: list[tuple[str, fleet_state.Effect]] = []
        self.said: list[Operation] = []
        self.on_topic: dict[str, Operation] = {}
        self.replies: list[PublishOperation] = []
        self.reports: dict[str, Report] = {}
        self.retained: Plan | None = None
        self.contents: dict[str, str] = {}
        self.lose_calls = False
        self.sites = {name: SiteHost(name, self) for name in fleet.sites}
        for host in hosts:
            self.start(host)

    # -- time and the bus

    @property
    def wall(self) -> dt.datetime:
        return EPOCH + dt.timedelta(seconds=self.mono - 1000.0 + self.jump_s)

    @property
    def now(self) -> Now:
        return Now(self.mono, self.wall)

    def post_all(self, event: Input) -> None:
        self.posted += [(host, event) for host in self.hosts]

    def drain(self) -> None:
        turns = 0
        while self.posted:
            turns += 1
            assert turns < 20_000, "the fleet never comes to rest"
            host, event = self.posted.popleft()
            if host in self.hosts:
                self.step(host, event)

    def step(self, host: str, event: Input) -> None:
        before = self.hosts[host]
        state, effects = core.step(before, event, self.now)
        if before.known is not None:
            assert state.known is not None
            assert state.known.key >= before.known.key, "a key fell"
        if state.role is Role.LEADING:
            self.check(state.known)
        self.hosts[host] = state
        for effect in effects:
            self.log.append((host, effect))
            self.carry_out(host, effect)

    def check(self, plan: Plan | None) -> None:
        assert plan is not None
        for division in (*plan.services.values(), *plan.groups.values()):
            assert sum(division.shares.values()) == 100
            assert division.since, "a division has lost its label"
        if plan.running is not None:
            assert plan.running.state in (OperationState.RUNNING, OperationState.WAITING)
            assert plan.running.id not in [r.id for r in plan.past]

    def carry_out(self, host: str, effect: fleet_state.Effect) -> None:
        match effect:
            case SavePlan(plan):
                self.disk[host] = self.saved[host] = plan
            case PublishPlan(plan, slices):
                assert self.saved[host] == plan, "a plan was published that was not on disk"
                assert self.contents.setdefault(plan.key.label, plan.hash) == plan.hash, "one key, two contents"
                self.retained = plan
                for name, piece in slices.items():
                    self.sites[name].hear(site_core.SliceArrived(piece))
                for site in self.sites.values():
                    site.hear(site_core.PlanArrived(plan))
                self.post_all(PlanSeen(plan))
            case PublishOperation(operation, _, on_topic):
                self.said.append(operation)
                self.replies.append(effect)
                if on_topic:
                    self.on_topic[operation.id] = operation
            case PublishClaim(claim):
                self.post_all(ClaimCame(claim))
                for site in self.sites.values():
                    site.hear(site_core.ClaimArrived(claim))
            case PublishBeacon(beacon):
                self.post_all(BeaconSeen(beacon, retained=False))
            case SendProbe(site, probe):
                self.sites[site].probe(probe)
            case Note():
                pass

    def pass_s(self, seconds: float) -> None:
        """Time passes in ticks of 0.5 s; sites report every 2 s."""
        for _ in range(round(seconds * 2)):
            self.mono += 0.5
            if self.mono % 2 == 0:
                for site in self.sites.values():
                    site.report()
            self.post_all(Tick())
            self.drain()

    # -- what happens

    def start(self, host: str) -> None:
        """A coordinator's process begins: its disk, then what is retained."""
        self.hosts[host] = State(fleet=self.fleet, host=host, known=self.disk.get(host), since=self.mono)
        if self.retained is not None:
            self.posted.append((host, PlanSeen(self.retained)))
        self.posted += [(host, ReportCame(report, retained=True)) for report in self.reports.values()]
        self.drain()

    def stop(self, host: str) -> None:
        del self.hosts[host]

    def lose_link(self, host: str) -> None:
        """The connection of a coordinator to the broker goes and comes back; what is retained comes again."""
        self.step(host, LinkLost())
        if self.retained is not None:
            self.posted.append((host, PlanSeen(self.retained)))
        self.posted += [(host, ReportCame(report, retained=True)) for report in self.reports.values()]
        self.drain()

    def events(self, site: str, kind: CallEventKind, call: str, **fields: Any) -> None:
        event = CallEvent(kind, call, 0, synthetic=fields.pop("synthetic", True), **fields)
        self.sites[site].batches += 1
        self.post_all(EventsCame(CallEvents(site, "one", self.sites[site].batches, (event,))))

    def send_raw(self, payload: bytes, *, retained: bool = False) -> None:
        self.post_all(CommandCame(payload, retained, ReplyTo("reply", b"corr")))
        self.drain()

    def send(self, kind: str, **fields: Any) -> str:
        body = fields_of(kind, wall=self.wall, **fields)
        self.send_raw(json.dumps(body).encode())
        return str(body["id"])

    # -- what is so

    def leader(self) -> State:
        [state] = [s for s in self.hosts.values() if s.role is Role.LEADING]
        return state

    @property
    def plan(self) -> Plan:
        plan = self.leader().known
        assert plan is not None
        return plan

    def shares(self, service: str = "claims") -> dict[str, int]:
        return {s: p for s, p in self.plan.services[service].shares.items() if p}

    def words(self, id_: str) -> list[str]:
        """The states that were said of an operation, repeats taken together."""
        found: list[str] = []
        for operation in self.said:
            if operation.id == id_ and found[-1:] != [operation.state.value]:
                found.append(operation.state.value)
        return found

    def last(self, id_: str) -> Operation:
        return next(o for o in reversed(self.said) if o.id == id_)

    def notes(self, kind: str) -> list[Note]:
        return [e for _, e in self.log if isinstance(e, Note) and e.kind == kind]

    def plans(self) -> list[Plan]:
        return [e.plan for _, e in self.log if isinstance(e, PublishPlan)]


def led(**options: Any) -> World:
    """A fleet whose coordinator leads, with all sites applied."""
    world = World(**options)
    world.pass_s(8)
    assert world.leader().host == "coordinator"
    return world


def test_the_driver_brings_a_fleet_up_and_its_sites_hold_the_plan() -> None:
    world = led()
    assert {s.state.applied.key for s in world.sites.values() if s.state.applied} == {world.plan.key}
    assert world.sites["nanchang"].astdb["cp/did/95556"] == "claims"


def test_every_kind_has_a_good_example_here() -> None:
    assert set(FIELDS) == {str(kind.__struct_config__.tag) for kind in KINDS}
    for kind in FIELDS:
        assert command_of(kind).issued_by == "anna"
