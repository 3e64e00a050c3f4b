"""The decisions of a site daemon: `step(state, input) -> (state, effects)`.

Laws: a site refuses a lower key than it has accepted or promised, and another content for a key it knows; a promise is
on disk before it is answered, a slice before it is applied; nothing is written while an engineer says hands off;
`applied` is said only after Asterisk was seen to hold the whole slice.
"""

from __future__ import annotations

import datetime as dt
from typing import assert_never

import msgspec

from controlplane.contract.errors import PayloadError
from controlplane.contract.key import Authority
from controlplane.contract.plan import Plan, Slice
from controlplane.contract.report import Applied, Claim, Promise
from controlplane.site.compile import HOLD, wanted
from controlplane.site.diff import Observed, Step, difference, taken_ids, without

#: Passes of repair in a row before the site says that its Asterisk does not keep what it is given.
MOST_PASSES = 3


class State(msgspec.Struct, frozen=True):
    """All that a site daemon decides from. `passes` counts repairs since the content last was right."""

    site: str
    promised: Authority | None = None
    piece: Slice | None = None
    plan: Plan | None = None
    applied: Applied | None = None
    hands_off: bool = False
    trouble: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    passes: int = 0


class ClaimArrived(msgspec.Struct, frozen=True):
    claim: Claim


class SliceArrived(msgspec.Struct, frozen=True):
    piece: Slice


class PlanArrived(msgspec.Struct, frozen=True):
    plan: Plan


class Unreadable(msgspec.Struct, frozen=True):
    """A plan or slice came that cannot be read; it is not applied, and that is said."""

    what: str
    why: str


class Looked(msgspec.Struct, frozen=True):
    """A full snapshot of Asterisk. `hold_file`: the engineer's hands-off file exists. `at` is the wall clock before the
    snapshot was asked for."""

    observed: Observed
    hold_file: bool
    at: dt.datetime


class StepsFailed(msgspec.Struct, frozen=True):
    """Some steps of a repair were refused, or nobody knows what became of them."""

    why: tuple[str, ...]


Input = ClaimArrived | SliceArrived | PlanArrived | Unreadable | Looked | StepsFailed


class SavePromise(msgspec.Struct, frozen=True):
    authority: Authority


class SaveSlice(msgspec.Struct, frozen=True):
    piece: Slice


class SavePlan(msgspec.Struct, frozen=True):
    plan: Plan


class SendPromise(msgspec.Struct, frozen=True):
    promise: Promise


class Look(msgspec.Struct, frozen=True):
    """Take a snapshot of Asterisk and bring it as `Looked`."""


class Do(msgspec.Struct, frozen=True):
    """Carry out steps in this order, then look again."""

    steps: tuple[Step, ...]


class SendReport(msgspec.Struct, frozen=True):
    """Say how things are, now."""


class Note(msgspec.Struct, frozen=True):
    """Write a row to the journal."""

    kind: str
    body: dict[str, object]


Effect = SavePromise | SaveSlice | SavePlan | SendPromise | Look | Do | SendReport | Note
Result = tuple[State, tuple[Effect, ...]]
_change = msgspec.structs.replace


def step(state: State, event: Input) -> Result:
    """What a site does about one thing that happened. Effects are carried out in order."""
    match event:
        case ClaimArrived(claim):
            return _claim(state, claim)
        case SliceArrived(piece):
            return _slice(state, piece)
        case PlanArrived(plan):
            return _plan(state, plan)
        case Unreadable(what, why):
            return _say(state, f"{what} cannot be read and was not applied: {why}")
        case Looked():
            return _looked(state, event)
        case StepsFailed(why):
            return _change(state, trouble=why), (Note("trouble", {"why": list(why)}), SendReport())
        case _:
            assert_never(event)


def _say(state: State, trouble: str) -> Result:
    return _change(state, trouble=(trouble,)), (Note("trouble", {"why": [trouble]}), SendReport())


def _claim(state: State, claim: Claim) -> Result:
    """A higher claim is promised; a lower one gets the higher promise as its answer and so learns that it lost. What is
    held of a plan binds like a promise."""
    promised = state.promised
    held = state.piece.key.authority if state.piece is not None else None
    bound = max((a for a in (promised, held) if a is not None), default=None)
    if bound is not None and claim.authority < bound:
        return state, (SendPromise(Promise(state.site, bound, None)),)
    effects: list[Effect] = []
    if claim.authority != promised:
        effects += [SavePromise(claim.authority), Note("promise", {"authority": claim.authority.label})]
    effects.append(SendPromise(Promise(state.site, claim.authority, state.plan)))
    return _change(state, promised=claim.authority), tuple(effects)


def slice_fault(state: State, piece: Slice) -> str | None:
    """Why a slice must not be applied, or None."""
    if piece.site != state.site:
        return f"this slice is for {piece.site}"
    if state.promised is not None and piece.key.authority < state.promised:
        return f"key {piece.key.label} is below the promise to {state.promised.label}"
    if state.piece is None:
        return None
    if piece.key < state.piece.key:
        return f"key {piece.key.label} is below {state.piece.key.label}, which is here already"
    if piece.key == state.piece.key and piece.hash != state.piece.hash:
        return f"key {piece.key.label} names two contents; the first one stays"
    return None


def _slice(state: State, piece: Slice) -> Result:
    if fault := slice_fault(state, piece):
        note = Note("slice-refused", {"key": piece.key.label, "why": fault})
        return state, (note, SendReport())
    if state.piece is not None and piece.key == state.piece.key:
        return state, ()
    note = Note("slice", {"key": piece.key.label, "hash": piece.hash})
    return _change(state, piece=piece, passes=0, trouble=()), (SaveSlice(piece), note, Look())


def _plan(state: State, plan: Plan) -> Result:
    """The newest plan is kept so that whoever takes over can have it from any site."""
    if state.promised is not None and plan.key.authority < state.promised:
        return state, ()
    if state.plan is not None and plan.key <= state.plan.key:
        return state, ()
    return _change(state, plan=plan), (SavePlan(plan),)


def _looked(state: State, looked: Looked) -> Result:
    held = looked.hold_file or HOLD in looked.observed.astdb
    if held != state.hands_off:
        note = Note("hands-off" if held else "hands-on", {})
        state = _change(state, hands_off=held)
        return _then(_repair(state, looked), note)
    return _repair(state, looked)


def _then(result: Result, note: Note) -> Result:
    return result[0], (note, *result[1])


def _repair(state: State, looked: Looked) -> Result:
    if state.hands_off:
        return _change(state, trouble=("hands off: an engineer holds this site; nothing is written",)), (SendReport(),)
    if state.piece is None:
        return _change(state, trouble=("no slice was ever received",)), (SendReport(),)
    try:
        want = wanted(state.piece)
        taken = taken_ids(want, looked.observed)
        steps = difference(without(want, taken), looked.observed)
    except PayloadError as error:
        return _change(state, trouble=(f"the slice cannot be written: {error}",)), (SendReport(),)
    if not steps:
        return _holds(state, state.piece, looked.at, taken)
    if state.passes >= MOST_PASSES:
        # Given up until something new happens: the next trigger starts over.
        why = f"after {state.passes} repairs Asterisk still differs in: {_names(steps)}"
        return _change(state, passes=0, trouble=(why,)), (Note("trouble", {"why": [why]}), SendReport())
    drift = () if state.applied is None or state.applied.key != state.piece.key else (_names(steps),)
    state = _change(state, passes=state.passes + 1, repaired=(*state.repaired, *drift)[-5:])
    notes = (Note("repair", {"steps": _names(steps)}),) if drift else ()
    return state, (*notes, Do(steps))


def _holds(state: State, piece: Slice, at: dt.datetime, taken: frozenset[str]) -> Result:
    """All is there, but for agents whose id an endpoint of the site's own configuration has: that is said, and keeps
    nothing else from being applied."""
    trouble = tuple(
        f"agent {i}: an endpoint of this name is in pjsip.conf here; choose another id" for i in sorted(taken)
    )
    said: tuple[Effect, ...] = () if trouble == state.trouble else (SendReport(),)
    state = _change(state, passes=0, trouble=trouble)
    applied = state.applied
    if applied is not None and (applied.key, applied.hash) == (piece.key, piece.hash):
        return state, said
    state = _change(state, applied=Applied(piece.key, piece.hash, at))
    return state, (SendReport(), Note("applied", {"key": piece.key.label, "hash": piece.hash}))


def _names(steps: tuple[Step, ...]) -> str:
    names = [getattr(s, "key", None) or getattr(s, "interface", None) or type(s).__name__ for s in steps]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
