"""The life of an operation: begun by a command, carried by the plan, judged at its gates, ended with what was seen.

    accepted → running ⇄ waiting (paused) → done | failed | undone | superseded

Every move is a new plan: saved, then published, so that whoever takes over goes on from it.
"""

from __future__ import annotations

import msgspec

from controlplane.contract.command import Cancel, Command, Failover, Pause, Resume, kind_of
from controlplane.contract.operation import FINAL, OperationState
from controlplane.contract.plan import CommandResult, OperationRecord, Plan, SiteMode
from controlplane.fleet import proof
from controlplane.fleet.footprint import footprint
from controlplane.fleet.guards import Situation, configuration_differs, held
from controlplane.fleet.ingress import by_carrier
from controlplane.fleet.operations import Gate, Missed, Phase, change, deadline_s, phases, undone
from controlplane.fleet.slicing import relabel, slices
from controlplane.fleet.state import (
    Effect,
    Note,
    Now,
    PublishOperation,
    PublishPlan,
    Result,
    SavePlan,
    SendProbe,
    State,
    operation_at,
)
from controlplane.fleet.view import new_evidence

#: How many ended operations the plan remembers for undo and restore.
MOST_PAST = 20
#: How long a synthetic call may take before another is asked for. A phone is not rung again.
ASK_AGAIN_S = 2.5
_ASKED_AGAIN = frozenset({Gate.CALLS})
_change = msgspec.structs.replace


def situation(state: State, plan: Plan, now: Now) -> Situation:
    return Situation(state.fleet, plan, state.view, now.mono, now.wall)


def commit(state: State, before: Plan, after: Plan, now: Now) -> Result:
    """A changed plan under the next key, saved and published. Ids of expired commands are forgotten here."""
    commands = {i: c for i, c in after.commands.items() if c.expires_at > now.wall}
    plan = _change(after, key=before.key.next_revision(), commands=commands)
    plan = relabel(state.fleet, before, plan)
    return _change(state, known=plan), (SavePlan(plan), PublishPlan(plan, slices(state.fleet, plan)))


def begin(state: State, plan: Plan, command: Command, now: Now) -> Result:
    """Obey a command that no rule refuses."""
    id_ = str(command.id)
    if not phases(command):
        return _at_once(state, plan, command, now)  # What the running operation has seen so far stays.
    ended: tuple[Effect, ...] = ()
    before = plan
    if plan.running is not None:
        plan, ended = _superseded(state, plan, plan.running, now)
    state = _change(state, view=new_evidence(state.view), phase_at=now.mono)
    after, could_not = change(command, plan, state.fleet)
    at = situation(state, plan, now)
    reasons = {site: why for site in state.fleet.sites if (why := _beyond(site, command, at))}
    differs = tuple(why for site in state.fleet.sites if (why := configuration_differs(site, at)))
    record = OperationRecord(
        id=id_,
        command=command,
        state=OperationState.RUNNING,
        phase=0,
        started_at=now.wall,
        since=now.wall,
        footprint=footprint(plan, after),
        left_out=tuple(reasons),
        unproven=(*could_not, *reasons.values(), *differs, *by_carrier(command, at)),
    )
    result = CommandResult(kind_of(command), OperationState.RUNNING, command.expires_at)
    after = _change(after, running=record, commands=after.commands | {id_: result})
    state, committed = commit(state, before, after, now)
    said = _say(state, record, OperationState.RUNNING, now)
    state, asked = _ask(state, record, now)
    return state, (*committed, *ended, said, *asked)


def _beyond(site: str, command: Command, at: Situation) -> str | None:
    """Why nothing is expected of a site, so that nothing about it can be proven."""
    if isinstance(command, Failover) and command.confirm_dead and site == command.site:
        return f"{site} is dead, as a person confirmed: nothing was asked of it"
    return at.view.unreachable(site, at.mono) or held(site, at)


def _superseded(state: State, plan: Plan, record: OperationRecord, now: Now) -> tuple[Plan, tuple[Effect, ...]]:
    """A forced failover does not wait: what the other did stays, and what it had not proven is said."""
    phase = phases(record.command)[record.phase]
    missing = proof.judge(phase, record, situation(state, plan, now)).missing
    return _end(state, plan, record, OperationState.SUPERSEDED, now, missing)


def _at_once(state: State, plan: Plan, command: Command, now: Now) -> Result:
    """Pause, resume, cancel: what they change is in the plan itself, and done when that is saved."""
    after = plan
    ended: tuple[Effect, ...] = ()
    if isinstance(command, Cancel) and plan.running is not None:
        reverted, kept = undone(plan.running, plan)
        after, ended = _end(state, reverted, plan.running, OperationState.CANCELLED, now, kept)
    if isinstance(command, Pause):
        after = _change(plan, paused_at=now.wall)
    if isinstance(command, Resume):
        after = _change(plan, paused_at=None)
    kind = kind_of(command)
    result = CommandResult(kind, OperationState.DONE, command.expires_at)
    after = _change(after, commands=after.commands | {str(command.id): result})
    state, effects = commit(state, plan, after, now)
    key = state.known.key if state.known else None
    message = operation_at(
        OperationState.DONE, id_=str(command.id), kind=kind, key=key, wall=now.wall, progress=1.0
    )  # fmt: skip
    return state, (*effects, *ended, PublishOperation(message, state.replies.get(str(command.id))))


def advance(state: State, plan: Plan, now: Now) -> Result:
    """Judge the running operation's gate and move on where it is met or missed."""
    record = plan.running
    if record is None:
        return state, ()
    if plan.paused_at is not None and record.started_at < plan.paused_at:
        return _hold(state, plan, record, now)
    if record.state is OperationState.WAITING:
        return _wake(state, plan, record, now)
    steps = phases(record.command)
    phase = steps[record.phase]
    verdict = proof.judge(phase, record, situation(state, plan, now))
    if verdict.met:
        return _next_phase(state, plan, record, now)
    if now.mono - state.phase_at < deadline_s(record.command, phase):
        return _ask(state, record, now) if _ask_again(state, phase, now) else (state, ())
    return _missed(state, plan, record, phase, verdict, now)


def _ask_again(state: State, phase: Phase, now: Now) -> bool:
    """Whoever took the operation over has not asked for anything yet."""
    if state.asked_at is None:
        return True
    return phase.gate in _ASKED_AGAIN and now.mono - state.asked_at >= ASK_AGAIN_S


def _hold(state: State, plan: Plan, record: OperationRecord, now: Now) -> Result:
    """A pause that came while it ran: it stands at its gate until a person resumes."""
    if record.state is OperationState.WAITING:
        return state, ()
    waiting = _change(record, state=OperationState.WAITING)
    state, effects = commit(state, plan, _change(plan, running=waiting), now)
    return state, (*effects, _say(state, waiting, OperationState.WAITING, now))


def _wake(state: State, plan: Plan, record: OperationRecord, now: Now) -> Result:
    running = _change(record, state=OperationState.RUNNING, since=now.wall)
    state = _change(state, phase_at=now.mono)
    state, effects = commit(state, plan, _change(plan, running=running), now)
    said = _say(state, running, OperationState.RUNNING, now)
    state, asked = _ask(state, running, now)
    return state, (*effects, said, *asked)


def _next_phase(state: State, plan: Plan, record: OperationRecord, now: Now, unproven: tuple[str, ...] = ()) -> Result:
    record = _change(record, unproven=(*record.unproven, *unproven))
    if record.phase + 1 >= len(phases(record.command)):
        more = tuple(proof.unprovable(record, state.fleet, plan))
        plan_after, ended = _end(state, plan, record, OperationState.DONE, now, more)
        state, effects = commit(state, plan, plan_after, now)
        return state, (*effects, *ended)
    record = _change(record, phase=record.phase + 1, since=now.wall)
    state = _change(state, phase_at=now.mono)
    state, effects = commit(state, plan, _change(plan, running=record), now)
    said = _say(state, record, OperationState.RUNNING, now)
    state, asked = _ask(state, record, now)
    return state, (*effects, said, *asked)


def _missed(
    state: State, plan: Plan, record: OperationRecord, phase: Phase, verdict: proof.Verdict, now: Now
) -> Result:
    """The gate was not met in time."""
    match phase.missed:
        case Missed.GO_ON:
            return _next_phase(state, plan, record, now, verdict.missing)
        case Missed.FINISH:
            after, ended = _end(state, plan, record, OperationState.DONE, now, verdict.missing)
        case Missed.FAIL:
            after, ended = _end(state, plan, record, OperationState.FAILED, now, verdict.missing)
        case Missed.UNDO:
            reverted, kept = undone(record, plan)
            after, ended = _end(state, reverted, record, OperationState.UNDONE, now, (*verdict.missing, *kept))
    state, effects = commit(state, plan, after, now)
    return state, (*effects, *ended)


def _end(
    state: State, plan: Plan, record: OperationRecord, end: OperationState, now: Now, unproven: tuple[str, ...]
) -> tuple[Plan, tuple[Effect, ...]]:
    """The plan without its running operation, and the word about it."""
    record = _change(record, state=end, unproven=(*record.unproven, *unproven))
    commands = dict(plan.commands)
    if known := commands.get(record.id):
        commands[record.id] = _change(known, state=end)
    after = _change(plan, running=None, past=_past(plan, record), commands=commands)
    verdict = Note("verdict", record.id, {"state": end.value, "unproven": list(record.unproven)})
    return after, (verdict, _say(_change(state, known=plan), record, end, now))


def _past(plan: Plan, record: OperationRecord) -> tuple[OperationRecord, ...]:
    """The newest ended operations, and every failover of a site that is still closed: restore needs its marks."""
    every = (*plan.past, record)
    closed = {name for name, site in plan.sites.items() if site.mode is SiteMode.CLOSED}
    needed = [r for r in every[:-MOST_PAST] if isinstance(r.command, Failover) and r.command.site in closed]
    return (*needed[-MOST_PAST:], *every[-MOST_PAST:])


def last_words(state: State, plan: Plan, now: Now) -> tuple[Effect, ...]:
    """What whoever takes over says again: its predecessor may have died between the plan and the word."""
    records = (*plan.past[-3:], *([plan.running] if plan.running else []))
    return tuple(_say(state, record, record.state, now) for record in records)


def _say(state: State, record: OperationRecord, word: OperationState, now: Now) -> PublishOperation:
    steps = phases(record.command)
    plan = state.known
    done = 1.0 if word in FINAL else record.phase / len(steps)
    message = operation_at(
        word,
        id_=record.id,
        kind=kind_of(record.command),
        key=plan.key if plan else None,
        wall=now.wall,
        phase=steps[record.phase].name,
        progress=round(done, 2),
        unproven=record.unproven,
        observed=proof.observed(record, situation(state, plan, now)) if plan else {},
    )
    return PublishOperation(message, state.replies.get(record.id))


def _ask(state: State, record: OperationRecord, now: Now) -> Result:
    """The synthetic calls of the present phase that were not seen yet. One may be lost on its way, or find a link that
    only just came up, so they are asked for again until the deadline."""
    if state.known is None:
        return state, ()
    phase = phases(record.command)[record.phase]
    asked = proof.probes(phase, record, situation(state, state.known, now))
    return _change(state, asked_at=now.mono), tuple(SendProbe(site, probe) for site, probe in asked)
