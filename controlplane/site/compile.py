"""What a slice means for the site's Asterisk: the AstDB family `cp`, and the queue members that are ours.

Keys are written without their leading slash, as in `cp/svc/claims`. The forms are in docs/reference.md.
"""

from __future__ import annotations

import json

import msgspec

from controlplane.contract.key import Key
from controlplane.contract.names import REALM
from controlplane.contract.plan import Seat, Slice
from controlplane.site.table import split_value

#: Queue members whose name starts so are ours; all others are left alone.
OURS = "cp:"
APPLIED = "cp/applied"
HOLD = "cp/hold"


class Member(msgspec.Struct, frozen=True):
    """One of our members of a queue."""

    name: str
    penalty: int


class Wanted(msgspec.Struct, frozen=True):
    """What the Asterisk of a site should hold. `members` by (queue, interface)."""

    astdb: dict[str, str]
    members: dict[tuple[str, str], Member]


def wanted(piece: Slice) -> Wanted:
    """The content that a slice asks for. Raises PayloadError where a value cannot be held by AstDB."""
    astdb = {f"cp/did/{did}": service for did, service in piece.dids.items()}
    astdb |= {f"cp/prefix/{prefix}": group for prefix, group in piece.prefixes.items()}
    astdb |= {f"cp/trunk/{name}": f"{t.site}:{t.endpoint}:{t.cap}" for name, t in piece.trunks.items()}
    astdb |= {f"cp/link/{site}": f"{link.endpoint}:{link.cap}" for site, link in piece.links.items()}
    astdb |= {f"cp/svc/{name}": split_value(split) for name, split in piece.services.items()}
    astdb |= {f"cp/out/{name}": split_value(split) for name, split in piece.groups.items()}
    for agent, seat in piece.seats.items():
        astdb |= seat_objects(agent, seat)
    astdb[APPLIED] = applied_value(piece.key, piece.hash)
    members = {
        (service, f"PJSIP/{agent}"): Member(f"{OURS}{agent}", seat.penalty)
        for agent, seat in piece.seats.items()
        for service in seat.services
    }
    return Wanted(astdb, members)


def applied_value(key: Key, slice_hash: str) -> str:
    return f"{key.label}:{slice_hash}"


def seat_objects(agent: str, seat: Seat) -> dict[str, str]:
    """The PJSIP objects of a remote agent: flat JSON of strings, read by Asterisk's AstDB sorcery wizard."""
    auth = {
        "auth_type": "digest",
        "username": agent,
        "realm": REALM,
        "password_digest": f"MD5:{seat.digest}",
        "supported_algorithms_uas": "MD5",
    }
    aor = {"max_contacts": "1", "remove_existing": "yes", "qualify_frequency": "15", "qualify_timeout": "3"}
    endpoint = {
        "context": "cp-from-agent",
        "disallow": "all",
        "allow": "alaw,ulaw",
        "auth": agent,
        "aors": agent,
        "callerid": f"{agent} <{agent}>",
        "identify_by": "username,auth_username",
        "rtp_symmetric": "yes",
        "force_rport": "yes",
        "rewrite_contact": "yes",
        "direct_media": "no",
        "send_connected_line": "no",
        "trust_id_inbound": "no",
    }
    return {
        f"cp/{kind}/{agent}": json.dumps(fields, separators=(",", ":"))
        for kind, fields in (("auth", auth), ("aor", aor), ("endpoint", endpoint))
    }
