"""Call events out of the dialplan's UserEvents. Reads any fields, trusts none: what cannot be read is dropped."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.contract.report import CallEvent, CallEventKind

_KINDS = {
    "CPRoute": CallEventKind.ROUTE,
    "CPNext": CallEventKind.NEXT,
    "CPArrive": CallEventKind.ARRIVE,
    "CPAnswered": CallEventKind.ANSWERED,
    "CPLast": CallEventKind.LAST,
    "CPCorrupt": CallEventKind.CORRUPT,
}
USER_EVENTS = tuple(_KINDS)


def _number(fields: Mapping[str, str], name: str) -> int:
    text = fields.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def read_call_event(fields: Mapping[str, str], *, received_ms: int) -> CallEvent | None:
    """The event in the fields of a UserEvent, or None where it is none of ours. An event without a time of its own
    gets `received_ms`, epoch milliseconds."""
    kind = _KINDS.get(fields.get("UserEvent", ""))
    if kind is None:
        return None
    detail = {
        CallEventKind.NEXT: f"{fields.get('Status', '')} {fields.get('Cause', '')}".strip(),
        CallEventKind.CORRUPT: f"{fields.get('Key', '')}: {fields.get('Reason', '')}",
    }.get(kind, "")
    return CallEvent(
        kind=kind,
        call=fields.get("Call", ""),
        at_ms=_number(fields, "At") or received_ms,
        call_kind=fields.get("Kind", ""),
        id=fields.get("Id", "") or fields.get("Service", ""),
        target=fields.get("Target", ""),
        plan=fields.get("Plan", ""),
        number=_number(fields, "N"),
        synthetic=fields.get("Syn", "0") == "1",
        came_from=fields.get("From", ""),
        waited_ms=_number(fields, "Waited"),
        detail=detail,
    )
