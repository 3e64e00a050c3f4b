"""Who writes plans: listening, claiming, leading, standing by.

Law: in each reachable part of the fleet one writer counts. A newcomer claims a higher authority; sites promise on disk
and answer with the newest plan they hold; the newcomer publishes the highest of these unchanged under its own key, and
only then changes it. A writer that sees a higher key stops. In mode `fixed` a coordinator claims by itself only where
the newest plan is its own, or where there is none and `fleet.toml` names it; everything else takes a person.
"""

from __future__ import annotations

import datetime as dt

import msgspec

from controlplane.contract.key import Authority, Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import CommandResult, Plan
from controlplane.contract.report import Beacon, Claim, Promise
from controlplane.fleet.slicing import first_plan, fit_to_fleet, relabel, slices
from controlplane.fleet.state import (
    Claiming,
    Effect,
    Note,
    Now,
    PublishBeacon,
    PublishClaim,
    PublishOperation,
    PublishPlan,
    Result,
    Role,
    SavePlan,
    State,
    operation_at,
)
from controlplane.fleet.view import new_evidence

#: How long a coordinator listens before it decides whether to claim: retained topics come at once, reports every 2 s.
LISTEN_S = 3.0
#: How long a claim waits for the promises of sites that were heard.
CLAIM_S = 3.0
BEACON_S = 2.0
#: How often a plan is published again for sites that are behind.
REPEAT_S = 5.0
_change = msgspec.structs.replace


def heard(state: State, authority: Authority | None) -> State:
    """The state after hearing of an authority."""
    if authority is None or (state.floor is not None and authority <= state.floor):
        return state
    return _change(state, floor=authority)


def plan_seen(state: State, plan: Plan, now: Now) -> Result:
    """A plan that another wrote: the newest is remembered; a writer that sees a higher one stops."""
    state = heard(state, plan.key.authority)
    if state.known is not None and plan.key <= state.known.key:
        # One of another writer below ours, put over ours on the bus: ours goes out again.
        lower = state.role is Role.LEADING and plan.key.authority < state.known.key.authority
        return (_change(state, overwritten=True) if lower else state), ()
    if _running_id(plan) != _running_id(state.known):
        # Another began it: what was seen of calls is kept for one operation, here as there.
        state = _change(state, view=new_evidence(state.view))
    state = _change(state, known=plan)
    if state.role is Role.LEADING or (state.claim is not None and plan.key.authority > state.claim.authority):
        return _step_down(state, f"plan {plan.key.label} is higher than ours", now)
    return state, ()


def _running_id(plan: Plan | None) -> str | None:
    return plan.running.id if plan is not None and plan.running is not None else None


def authority_seen(state: State, authority: Authority, now: Now) -> Result:
    """Somebody holds or claims this authority: ours is over where it is higher."""
    state = heard(state, authority)
    ours = state.known.key.authority if state.role is Role.LEADING and state.known else None
    if state.role is Role.CLAIMING and state.claim is not None:
        ours = state.claim.authority
    if ours is None or authority <= ours:
        return state, ()
    return _step_down(state, f"{authority.label} is higher than our {ours.label}", now)


def _step_down(state: State, why: str, now: Now) -> Result:
    """Back to listening: if the higher authority turns out to be an older life of ours, listening ends in a claim."""
    return _change(state, role=Role.LISTENING, since=now.mono, claim=None), (Note("stood-down", "", {"why": why}),)


def tick(state: State, now: Now) -> Result:
    match state.role:
        case Role.LISTENING if now.mono - state.since >= LISTEN_S:
            return _decide(state, now)
        case Role.CLAIMING if state.claim is not None:
            return _claim_due(state, state.claim, now)
        case Role.LEADING if state.known is not None and now.mono - state.beacon_at >= BEACON_S:
            beacon = Beacon(state.known.key.authority, state.known.key, now.wall)
            return _change(state, beacon_at=now.mono), (PublishBeacon(beacon),)
        case _:
            return state, ()


def _decide(state: State, now: Now) -> Result:
    """What a coordinator becomes when it has listened."""
    known = state.known.key.authority if state.known else None
    highest = max(filter(None, (known, state.floor)), default=None)
    leader = highest.holder if highest else state.fleet.authority.host
    if leader == state.host:
        return claim(state, now)
    return _change(state, role=Role.STANDBY), (Note("standby", "", {"leader": leader}),)


def claim(state: State, now: Now, *, takeover: str | None = None, expires_at: dt.datetime | None = None) -> Result:
    """Ask the sites for authority, one epoch above all that was heard of."""
    floor = max(filter(None, (state.floor, state.known.key.authority if state.known else None)), default=None)
    authority = Authority(floor.generation if floor else 1, floor.epoch + 1 if floor else 1, state.host)
    claiming = Claiming(authority, now.mono, best=state.known, takeover=takeover, takeover_expires_at=expires_at)
    state = _change(state, role=Role.CLAIMING, claim=claiming, floor=authority)
    return state, (
        Note("claim", takeover or "", {"authority": authority.label}),
        PublishClaim(Claim(authority, now.wall)),
    )


def promise_came(state: State, promise: Promise, now: Now) -> Result:
    claiming = state.claim
    if state.role is not Role.CLAIMING or claiming is None:
        return authority_seen(state, promise.promised, now)
    if promise.promised > claiming.authority:
        # Two claim at once, or the site promised what we never heard of: the higher one counts.
        return _step_down(heard(state, promise.promised), f"{promise.site} promised {promise.promised.label}", now)
    if promise.promised < claiming.authority:
        return state, ()
    best = claiming.best
    if promise.plan is not None and (best is None or promise.plan.key > best.key):
        best = promise.plan
    claiming = _change(claiming, promises=claiming.promises | {promise.site}, best=best)
    return _claim_due(_change(state, claim=claiming), claiming, now)


def _claim_due(state: State, claiming: Claiming, now: Now) -> Result:
    """Lead when every site has promised, or when those that did not have had their time."""
    if not set(state.fleet.sites) <= claiming.promises and now.mono - claiming.since < CLAIM_S:
        return state, ()
    key = Key.first(claiming.authority)
    # The highest plan unchanged, under the new key.
    found = [plan for plan in (claiming.best, state.known) if plan is not None]
    best = max(found, key=lambda plan: plan.key, default=None)
    plan = _change(best, key=key) if best else first_plan(state.fleet, key)
    silent = sorted(set(state.fleet.sites) - claiming.promises)
    effects: list[Effect] = [
        Note("leads", claiming.takeover or "", {"authority": claiming.authority.label, "silent": silent}),
        SavePlan(plan),
        PublishPlan(plan, slices(state.fleet, fit_to_fleet(state.fleet, plan))),
    ]
    state = _change(state, role=Role.LEADING, claim=None, known=plan, beacon_at=0.0, asked_at=None, phase_at=now.mono)
    fitted = fit_to_fleet(state.fleet, plan)
    if claiming.takeover is not None and claiming.takeover_expires_at is not None:
        done = CommandResult("takeover", OperationState.DONE, claiming.takeover_expires_at)
        fitted = _change(fitted, commands=fitted.commands | {claiming.takeover: done})
        unproven = tuple(f"{site} did not answer the claim" for site in silent)
        message = operation_at(
            OperationState.DONE, id_=claiming.takeover, kind="takeover", key=key, wall=now.wall,
            progress=1.0, unproven=unproven, observed={"promised": sorted(claiming.promises)},
        )  # fmt: skip
        effects.append(PublishOperation(message, state.replies.get(claiming.takeover)))
    if fitted != plan:
        fitted = relabel(state.fleet, fit_to_fleet(state.fleet, plan), _change(fitted, key=key.next_revision()))
        effects += [SavePlan(fitted), PublishPlan(fitted, slices(state.fleet, fitted))]
        state = _change(state, known=fitted)
    return state, tuple(effects)


def link_lost(state: State, now: Now) -> Result:
    """Without a broker nobody leads: another may, and what we would say then is old. We listen again when it is back."""
    if state.role is Role.STANDBY:
        return state, ()
    return _change(state, role=Role.LISTENING, since=now.mono, claim=None), ()


def repeat_to_those_behind(state: State, now: Now) -> Result:
    """A slice may have been lost, or an old one put over it: it is published again while a site is behind."""
    plan = state.known
    if state.role is not Role.LEADING or plan is None or now.mono - state.repeated_at < REPEAT_S:
        return state, ()
    behind = [
        site
        for site in state.fleet.sites
        if not state.view.unreachable(site, now.mono)
        and (report := state.view.report(site)) is not None
        and not report.hands_off
        and (report.applied is None or report.applied.key < plan.key)
    ]
    if not behind and not state.overwritten:
        return state, ()
    state = _change(state, repeated_at=now.mono, overwritten=False)
    return state, (PublishPlan(plan, slices(state.fleet, plan)),)
