"""Which answer belongs to which action.

Invariant: every action in flight is in the table exactly until its answer is whole, it is forgotten, or the connection
is lost; the table never grows by answers that come too late. Only an action whose type names a completion event owns
the events that carry its ActionID; others, OriginateResponse above all, are for everybody (fault 22). Must not know:
sockets, queues, who waits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final, final

import msgspec

from controlplane.contract.errors import ActionRefused, ControlPlaneError, OutcomeUnknown
from controlplane.edge.ami.actions import Action
from controlplane.edge.ami.frames import Frame

MAX_LIST_ITEMS: Final = 200_000
MAX_FORGOTTEN: Final = 4_096

_LIST_END: Final = frozenset({"complete", "cancelled"})


class Reply(msgspec.Struct, frozen=True):
    """A successful answer: the response, and the items of the list in their order (without the completion event)."""

    frame: Frame
    events: tuple[Frame, ...] = ()


@final
class Pending:
    """An action that was written and whose answer nobody has got yet."""

    __slots__ = ("action", "action_id", "answer", "at_once", "deadline", "frame", "items", "outcome")

    def __init__(self, action: type[Action], action_id: str, *, deadline: float, at_once: bool) -> None:
        self.action: Final = action
        self.action_id: Final = action_id
        self.deadline: Final = deadline
        self.at_once: Final = at_once  # settled by the reader, past the queue of events: the link's own actions
        self.frame: Frame | None = None
        self.items: list[Frame] = []
        self.answer: Reply | ControlPlaneError | None = None  # arrived, perhaps still behind events in the queue
        # A value, never an exception: there may be nobody left to retrieve one.
        self.outcome: asyncio.Future[Reply | ControlPlaneError] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: Reply | ControlPlaneError) -> None:
        """Tell the one who waits. The first outcome counts."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def settle_answer(self) -> None:
        """Settle with the answer that arrived."""
        if self.answer is not None:
            self.settle(self.answer)


@final
class Correlation:
    """The actions in flight on one connection."""

    def __init__(self) -> None:
        self._pending: dict[str, Pending] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()  # lists nobody waits for, whose items still come
        self.late_dropped = 0

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, pending: Pending) -> None:
        """From now on this action is in flight."""
        self._pending[pending.action_id] = pending

    def forget(self, pending: Pending) -> None:
        """Nobody waits for this action any more; what still comes of it is dropped."""
        if self._pending.pop(pending.action_id, None) is not None and pending.action.COMPLETE:
            self._forgotten[pending.action_id] = None
            if len(self._forgotten) > MAX_FORGOTTEN:
                self._forgotten.popitem(last=False)

    def lost(self, reason: str) -> None:
        """The connection is gone: nobody will ever know what became of those in flight."""
        for pending in self._pending.values():
            name = pending.action.__name__
            pending.settle(OutcomeUnknown(f"{name}: the link went down before the answer ({reason})"))
        self._pending.clear()

    def take(self, frame: Frame, name: str) -> Frame | Pending | None:
        """The frame again when it is an event for everybody, an action when this ended it, else None."""
        if name:
            return self._event(frame, name)
        action_id = frame.action_id
        pending = self._pending.get(action_id)
        if pending is None:
            self.late_dropped += 1
            if frame.get("Response") == "Error":
                self._forgotten.pop(action_id, None)  # no list will follow
            return None
        if frame.get("Response") == "Error":
            message = frame.get("Message").strip() or "refused without a reason"  # some end in a line feed
            if message == pending.action.EMPTY:
                return self._end(pending, Reply(frame))
            return self._end(pending, ActionRefused(pending.action.__name__, message))
        if not pending.action.COMPLETE:
            return self._end(pending, Reply(frame))
        pending.frame = frame
        return None

    def _event(self, frame: Frame, name: str) -> Frame | Pending | None:
        action_id = frame.action_id
        if not action_id:
            return frame
        pending = self._pending.get(action_id)
        if pending is not None and pending.action.COMPLETE:
            return self._item(pending, frame, name)
        if action_id in self._forgotten:
            self.late_dropped += 1
            if _ends_list(frame):
                del self._forgotten[action_id]
            return None
        return frame

    def _item(self, pending: Pending, frame: Frame, name: str) -> Pending | None:
        action = pending.action
        if name == action.COMPLETE or _ends_list(frame):
            if pending.frame is None or frame.get("EventList").lower() == "cancelled":
                return self._end(pending, ActionRefused(action.__name__, "the list was broken off by the server"))
            return self._end(pending, Reply(pending.frame, tuple(pending.items)))
        if len(pending.items) >= MAX_LIST_ITEMS:
            self.forget(pending)
            pending.answer = OutcomeUnknown(f"{action.__name__}: more than {MAX_LIST_ITEMS} items")
            return pending
        pending.items.append(frame)
        return None

    def _end(self, pending: Pending, answer: Reply | ControlPlaneError) -> Pending:
        del self._pending[pending.action_id]
        pending.answer = answer
        return pending


def _ends_list(frame: Frame) -> bool:
    # Looked for as bytes first: the items of a long list are not parsed for it.
    return b"EventList" in frame.raw and frame.get("EventList").lower() in _LIST_END
