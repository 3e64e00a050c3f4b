"""Whatever happens to a fleet, in whatever order: nothing raises, and the laws hold at every step (the driver checks
them: on disk before published, no key falls, one content for each key, shares add up to 100, one running operation)."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.contract.command import KINDS, read
from controlplane.contract.operation import FINAL, OperationState
from controlplane.contract.plan import Plan
from controlplane.contract.report import CallEventKind
from controlplane.fleet.guards import OVERRIDABLE
from controlplane.fleet.state import Role
from tests.unit.test_fleet_driver import FIELDS, World, body_of

HOSTS = ("coordinator", "coordinator2")
SITES = st.sampled_from(["nanchang", "chengdu"])
SHARES = st.integers(0, 100)
COMMANDS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.builds(lambda a, s: ("shift", {"service": s, "shares": {"nanchang": a, "chengdu": 100 - a}}),
              SHARES, st.sampled_from(["claims", "enquiries"])),
    st.builds(lambda a: ("trunks", {"group": "national", "shares": {"nc-carrier": a, "cd-carrier": 100 - a}}), SHARES),
    st.builds(lambda a: ("failover", {"site": a, "to": "chengdu" if a == "nanchang" else "nanchang"}), SITES),
    st.builds(lambda a: ("restore", {"site": a}), SITES),
    st.builds(lambda a: ("agents.enrol", FIELDS["agents.enrol"] | {"site": a, "wait_s": 5}), SITES),
    st.builds(lambda h: ("takeover", {"host": h}), st.sampled_from(HOSTS)),
    st.sampled_from(["agents.revoke", "pause", "resume", "call"]).map(lambda k: (k, FIELDS[k])),
    st.sampled_from([("undo", {}), ("cancel", {})]),
)  # fmt: skip
ACTS = st.one_of(
    st.tuples(st.just("send"), COMMANDS, st.booleans(), st.booleans()),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 2.0, 6.0, 15.0])),
    st.tuples(st.just("site"), SITES, st.sampled_from(["alive", "deaf", "stubborn"])),
    st.tuples(st.just("calls")),
    st.tuples(st.just("phone"), SITES),
    st.tuples(st.just("link"), st.sampled_from(HOSTS)),
    st.tuples(st.just("clock"), st.sampled_from([-3600.0, 3600.0])),
    st.tuples(st.just("stale"), SITES),
    st.tuples(st.just("restart"), st.sampled_from(HOSTS)),
    st.tuples(st.just("disk"), st.sampled_from(HOSTS)),
    st.tuples(st.just("drift"), SITES, st.sampled_from(["cp/svc/claims", "cp/applied", "cp/odd", "cp/hold"])),
    st.tuples(st.just("junk"), st.binary(max_size=20)),
    st.tuples(st.just("event"), SITES, st.sampled_from(CallEventKind), st.text(max_size=5)),
)


def act(world: World, what: tuple[Any, ...]) -> None:
    match what:
        case ("send", (kind, fields), override, dry_run):
            newest = next((s.known for s in world.hosts.values() if s.role is Role.LEADING), None)
            if kind == "undo":
                if newest is None or not newest.past:
                    return
                fields = {"operation": newest.past[len(newest.past) // 2].id}
            if kind == "cancel":
                if newest is None or newest.running is None:
                    return
                fields = {"operation": newest.running.id}
            rules = sorted(OVERRIDABLE) if override else []
            world.send_raw(body_of(kind, wall=world.wall, override=rules, dry_run=dry_run, **fields))
        case ("pass", seconds):
            world.pass_s(seconds)
        case ("site", site, "alive"):
            world.sites[site].alive ^= True
        case ("site", site, "deaf"):
            world.sites[site].deaf ^= True
        case ("site", site, _):
            world.sites[site].stubborn ^= True
        case ("calls",):
            world.lose_calls ^= True
        case ("phone", site):
            world.sites[site].phones ^= {"home01"}
        case ("link", host):
            world.lose_link(host)
        case ("clock", jump_s):
            world.jump_s = jump_s
        case ("stale", site):
            world.sites[site].stale = dict(world.sites[site].astdb)
        case ("restart", host):
            world.stop(host)
            world.start(host)
        case ("disk", host):
            world.disk.pop(host, None)
        case ("drift", site, key):
            world.sites[site].astdb[key] = "x"
            world.sites[site].look()
        case ("junk", payload):
            world.send_raw(payload)
        case ("event", site, kind, call):
            world.events(site, kind, call)
            world.drain()


@given(st.lists(ACTS, min_size=5, max_size=30))
@settings(max_examples=50)
def test_no_history_raises_or_breaks_a_law(acts: list[tuple[Any, ...]]) -> None:
    world = World(hosts=HOSTS)
    world.pass_s(8)
    for what in acts:
        act(world, what)
    for plan in world.plans():
        assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan
    # What came to an end stays there; only whoever begins to lead says it again.
    ended: dict[str, OperationState] = {}
    for operation in world.said:
        if operation.state is not OperationState.REFUSED:
            assert ended.get(operation.id, operation.state) is operation.state
        if operation.state in FINAL and operation.state is not OperationState.REFUSED:
            ended[operation.id] = operation.state
    assert all(state is not OperationState.REFUSED for id_, state in topics(world) if id_ in ended)
    heal(world)


def topics(world: World) -> list[tuple[str, OperationState]]:
    return [(id_, operation.state) for id_, operation in world.on_topic.items()]


def heal(world: World) -> None:
    """When all faults are gone and a person takes over, the fleet comes to rest on one plan, at every site."""
    world.lose_calls = False
    for site in world.sites.values():
        site.alive, site.deaf, site.stubborn, site.stale = True, False, False, {}
        site.astdb.pop("cp/hold", None)
    world.pass_s(10)
    host = next((h for h, s in world.hosts.items() if s.role is Role.LEADING), "coordinator2")
    world.send("takeover", host=host)
    world.pass_s(10)
    world.send("resume")
    world.pass_s(60)
    assert sum(s.role is Role.LEADING for s in world.hosts.values()) == 1
    assert world.plan.running is None
    for site in world.sites.values():
        site.look()
        site.look()
        assert site.state.applied is not None
        assert site.state.applied.key == world.plan.key
        assert not isinstance(read(b"{}"), KINDS)
