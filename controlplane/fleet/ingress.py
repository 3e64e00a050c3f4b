"""What the carrier has to do when a site dies: a dead site cannot forward.

For each DID that the dead site takes in, the ingress of `fleet.toml` says whether and how its calls reach another site.
"""

from __future__ import annotations

from controlplane.contract.command import Command, Failover
from controlplane.contract.fleet import Fleet, IngressRule
from controlplane.fleet.guards import Situation


def by_carrier(command: Command, at: Situation) -> tuple[str, ...]:
    """What of a failover is not ours to do or to see, for a site that is out of reach; nothing for a living one."""
    if not isinstance(command, Failover):
        return ()
    if not command.confirm_dead and not at.view.unreachable(command.site, at.mono):
        return ()
    lines = [
        _way(did, command.site, at.fleet)
        for service in at.fleet.services.values()
        for did in service.dids
        if _enters(did, command.site, at.fleet)
    ]
    if not command.confirm_dead:
        lines.append(f"nobody confirmed that {command.site} is dead: if it lives, it goes on by its old plan")
    return tuple(lines)


def _enters(did: str, site: str, fleet: Fleet) -> bool:
    ways = fleet.ingress.get(did)
    return ways is None or any(fleet.trunks[t].site == site for t in ways.trunks)


def _way(did: str, site: str, fleet: Fleet) -> str:
    ways = fleet.ingress.get(did)
    if ways is None:
        return f"waiting_for_carrier: no ingress of {did} is described; ask the carrier where its calls go"
    others = [t for t in ways.trunks if fleet.trunks[t].site != site]
    if not others or ways.rule is IngressRule.SINGLE:
        return f"waiting_for_carrier: {did} has no way in but {site}; ask the carrier to divert it"
    how = " or ".join(ways.triggers) or "a rule that nobody described"
    return f"waiting_for_carrier: calls of {did} come in by {', '.join(others)} when the carrier changes by {how}"
