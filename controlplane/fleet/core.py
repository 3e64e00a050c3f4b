"""The decisions of a coordinator: `step(state, input, now) -> (state, effects)`.

Effects are carried out in order; one that saves must have succeeded before the next begins. Only the leader obeys
commands; a standby obeys one: a takeover that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import msgspec

from controlplane.contract.command import Cancel, Command, Takeover, id_in, kind_of, read
from controlplane.contract.operation import OperationState, Refusal
from controlplane.contract.plan import Plan
from controlplane.fleet import authority, engine, guards
from controlplane.fleet.footprint import fields
from controlplane.fleet.operations import change, phases, undone
from controlplane.fleet.state import (
    NO_ID,
    BeaconSeen,
    ClaimCame,
    CommandCame,
    Effect,
    EventsCame,
    Input,
    LinkLost,
    Note,
    Now,
    PlanSeen,
    PromiseCame,
    PublishOperation,
    ReplyTo,
    ReportCame,
    Result,
    Role,
    State,
    Tick,
    operation_at,
)
from controlplane.fleet.view import with_events, with_report

#: Commands kept for the few seconds in which it is decided who leads.
MOST_HELD = 50
_change = msgspec.structs.replace


def step(state: State, event: Input, now: Now) -> Result:
    """What a coordinator does about one thing that happened."""
    state, effects = _step(state, event, now)
    if not state.held or state.role not in (Role.LEADING, Role.STANDBY):
        return state, effects
    # It is known now who leads: the leader obeys what came meanwhile, a standby leaves it to the leader.
    held = state.held
    state = _change(state, held=())
    for came in held:
        state, more = _command(state, came, now)
        effects = (*effects, *more)
    return state, effects


def _step(state: State, event: Input, now: Now) -> Result:
    match event:
        case CommandCame():
            return _command(state, event, now)
        case ReportCame(report, retained):
            view = with_report(state.view, report, heard_at=None if retained else now.mono)
            state = _change(state, view=view)
            if report.promised is None or retained:
                return _moved(authority.heard(state, report.promised), now)
            return _then_moved(authority.authority_seen(state, report.promised, now), now)
        case EventsCame(batch):
            running = state.known is not None and state.known.running is not None
            view = with_events(state.view, batch, collect=running)
            return _moved(_change(state, view=view), now)
        case PromiseCame(promise):
            return _with_last_words(state.role, authority.promise_came(state, promise, now), now)
        case ClaimCame(claim):
            return authority.authority_seen(state, claim.authority, now)
        case PlanSeen(plan):
            return authority.plan_seen(state, plan, now)
        case BeaconSeen(beacon, retained):
            if retained:
                return authority.heard(state, beacon.authority), ()
            return authority.authority_seen(state, beacon.authority, now)
        case LinkLost():
            return authority.link_lost(state, now)
        case Tick():
            result = _with_last_words(state.role, authority.tick(state, now), now)
            result = _then(result, lambda s: authority.repeat_to_those_behind(s, now))
            return _then_moved(result, now)
        case _:
            assert_never(event)


def _then(result: Result, more: Callable[[State], Result]) -> Result:
    state, effects = result
    state, added = more(state)
    return state, (*effects, *added)


def _with_last_words(before: Role, result: Result, now: Now) -> Result:
    """Whoever begins to lead says how the newest operations stand."""
    state, effects = result
    if before is Role.LEADING or state.role is not Role.LEADING or state.known is None:
        return result
    return state, (*effects, *engine.last_words(state, state.known, now))


def _moved(state: State, now: Now) -> Result:
    """Let the running operation look at what is new."""
    if state.role is not Role.LEADING or state.known is None or state.known.running is None:
        return state, ()
    return engine.advance(state, state.known, now)


def _then_moved(result: Result, now: Now) -> Result:
    return _then(result, lambda state: _moved(state, now))


def _command(state: State, came: CommandCame, now: Now) -> Result:
    """The door: what may come in, and what is said to what may not."""
    command = read(came.payload)
    if state.role is not Role.LEADING or state.known is None:
        return _while_not_leading(state, command, came, now)
    if isinstance(command, Refusal):
        unread = id_in(came.payload)
        return state, _refuse(
            state, unread, "", (command,), came.reply_to, now, on_topic=not _is_known(state.known, unread)
        )
    at = engine.situation(state, state.known, now)
    id_ = str(command.id)
    if refusal := guards.door(command, at, retained=came.retained):
        fresh = not _is_known(state.known, id_)
        return state, _refuse(state, id_, kind_of(command), (refusal,), came.reply_to, now, on_topic=fresh)
    if found := guards.refusals(command, at):
        return state, _refuse(state, id_, kind_of(command), found, came.reply_to, now)
    if command.dry_run:
        return state, _predict(state, state.known, command, came.reply_to, now)
    if isinstance(command, Takeover) and command.host != state.host:
        return state, ()  # The standby that it names claims, and we stop when we see that.
    plan = state.known
    state = _remember(state, id_, came.reply_to)
    note = Note("command", id_, {"kind": kind_of(command), "command": msgspec.to_builtins(command)})
    state, effects = engine.begin(state, plan, command, now)
    return state, (note, *effects)


def _is_known(plan: Plan, id_: str | None) -> bool:
    """Whether an id belongs to a command that was obeyed: then what stands on its topic stays."""
    running = plan.running is not None and plan.running.id == id_
    return running or id_ in plan.commands or any(record.id == id_ for record in plan.past)


def _remember(state: State, id_: str, reply_to: ReplyTo | None) -> State:
    """Where to answer; only for what runs or is at the door, so that it stays small."""
    running = state.known.running.id if state.known and state.known.running else None
    replies = {i: r for i, r in state.replies.items() if i == running}
    return _change(state, replies=replies | ({id_: reply_to} if reply_to else {}))


def _while_not_leading(state: State, command: Command | Refusal, came: CommandCame, now: Now) -> Result:
    if came.retained:
        # It came with the subscription; the leader it was meant for may have obeyed its id long ago.
        found = (guards.RETAINED,)
        return state, _refuse(state, id_in(came.payload), "", found, came.reply_to, now, on_topic=False)
    if state.role is not Role.STANDBY:
        return _change(state, held=(*state.held, came)[-MOST_HELD:]), ()
    if not isinstance(command, Takeover) or command.host != state.host or command.dry_run:
        return state, ()
    if command.expires_at <= now.wall:
        return state, ()
    id_ = str(command.id)
    if state.known is not None and _is_known(state.known, id_):
        return state, ()
    if (why := _other_fleet(state)) and "configuration-differs" not in command.override:
        found = (Refusal("configuration-differs", why),)
        return state, _refuse(state, id_, "takeover", found, came.reply_to, now)
    note = Note("command", id_, {"kind": "takeover", "command": msgspec.to_builtins(command)})
    state = _remember(state, id_, came.reply_to)
    state, effects = authority.claim(state, now, takeover=id_, expires_at=command.expires_at)
    return state, (note, *effects)


def _other_fleet(state: State) -> str | None:
    """Why this host must not take over by itself: services that its fleet.toml does not name would be taken away."""
    if state.known is None or state.known.fleet_hash in ("", state.fleet.hash):
        return None
    return (
        f"{state.host} has another fleet.toml (hash {state.fleet.hash}) than the plan (hash {state.known.fleet_hash})"
    )


def _refuse(
    state: State,
    id_: str | None,
    kind: str,
    refusals: tuple[Refusal, ...],
    reply_to: ReplyTo | None,
    now: Now,
    *,
    on_topic: bool = True,
) -> tuple[Effect, ...]:
    message = operation_at(
        OperationState.REFUSED,
        id_=id_ or NO_ID,
        kind=kind,
        key=state.known.key if state.known else None,
        wall=now.wall,
        refusals=refusals,
    )
    body = {"kind": kind, "refusals": msgspec.to_builtins(refusals)}
    return Note("refused", id_ or "", body), PublishOperation(message, reply_to, on_topic)


def _predict(state: State, plan: Plan, command: Command, reply_to: ReplyTo | None, now: Now) -> tuple[Effect, ...]:
    """What a command would do, with nothing done: the fields it would change and the phases that would prove it."""
    if isinstance(command, Cancel) and plan.running is not None:
        after, could_not = undone(plan.running, plan)
    else:
        after, could_not = change(command, plan, state.fleet)
    old, new = fields(plan), fields(after)
    predicted: dict[str, object] = {
        "changes": {p: {"from": old[p], "to": v} for p, v in new.items() if p in old and old[p] != v},
        "phases": [p.name for p in phases(command)],
    }
    agents = sorted(set(plan.agents) ^ set(after.agents))
    if agents:
        predicted["agents"] = agents
    message = operation_at(
        OperationState.ACCEPTED,
        id_=str(command.id),
        kind=kind_of(command),
        key=plan.key,
        wall=now.wall,
        phase="dry-run",
        unproven=could_not,
        predicted=predicted,
    )
    return Note("dry-run", str(command.id), {"kind": kind_of(command)}), PublishOperation(message, reply_to)
