"""Render the Asterisk configuration of one site of the lab.

Invariant: every file of an Asterisk site is made here, from etc/*.tmpl (string.Template; each template names its
variables on its first line) and from the dialplan kit, which is copied unchanged: the lab runs the very files that real
hosts include. Knows nothing of containers; whoever starts them mounts the folder at /etc/asterisk.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

ETC = Path(__file__).resolve().parent / "etc"
DIALPLANS = Path(__file__).resolve().parents[2] / "dialplans"

# Files that Asterisk asks for and that have nothing to say here: without them each start logs errors, and the lab's tests
# read a log with an error in it as a fault.
EMPTY = ("acl", "ccss", "features", "pjproject", "stasis", "udptl")

# A value that ends a line or opens a section, comment or option would change the meaning of the file around it.
PLAIN = re.compile(r"[A-Za-z0-9._@:/-]+")

PEER = Template("""\
[site-$peer](peer-endpoint)
aors = site-$peer
auth = site-$peer-in
outbound_auth = site-$peer-out

[site-$peer](peer-aor)
contact = sip:$peer_ip:5060

; what $peer shows here
[site-$peer-in]
type = auth
auth_type = digest
username = site-$peer
password = $secret

; what this site shows at $peer
[site-$peer-out]
type = auth
auth_type = digest
username = site-$site
password = $secret

[site-$peer]
type = identify
endpoint = site-$peer
match = $peer_ip
""")

AGENT = Template("""\
[$agent](agent-endpoint)
auth = $agent
aors = $agent

[$agent](agent-auth)
username = $agent
password = $password

[$agent](agent-aor)
contact = sip:$agent@$phones
""")


@dataclass(frozen=True, slots=True)
class PeerLab:
    """Another site: its name and its address on the core network."""

    name: str
    core_ip: str


@dataclass(frozen=True, slots=True)
class AgentLab:
    """A static agent: endpoint and member of every queue of the site."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SiteLab:
    """All that the templates of one site need."""

    name: str
    carrier_ip: str
    peers: Sequence[PeerLab]
    agents: Sequence[AgentLab]
    phones: str
    """host:port where the phones of all static agents answer"""
    dids: Mapping[str, str]
    """DID to service; a queue is made for each service"""
    ami_secret: str = field(repr=False)
    intersite_secret: str = field(repr=False)
    """shared by the sites of a fleet: digest password in both directions"""
    last_announcement: str = "all-circuits-busy-now"


def render_site(site: SiteLab, out_dir: Path) -> None:
    """Write the whole /etc/asterisk of a site into out_dir; ValueError for a value that no line of it can hold.

    Files are readable by all, as Asterisk in its container runs under a user id of its own, and they hold secrets: keep the
    folder above them private.
    """
    _refuse_odd_values(site)
    variables = {
        "site": site.name,
        "carrier_ip": site.carrier_ip,
        "ami_secret": site.ami_secret,
        "last_announcement": site.last_announcement,
        "did_lines": "\n".join(f"exten => {did},1,Return({service})" for did, service in site.dids.items()),
        "peer_sections": "\n".join(_peer_section(site, peer) for peer in site.peers),
        "agent_sections": "\n".join(
            AGENT.substitute(agent=agent.name, password=agent.password, phones=site.phones) for agent in site.agents
        ),
        "queue_sections": "\n".join(_queue_section(site, service) for service in dict.fromkeys(site.dids.values())),
    }
    out_dir.mkdir(parents=True, exist_ok=True)
    out_dir.chmod(0o755)
    for template in sorted(ETC.glob("*.tmpl")):
        text = Template(template.read_text(encoding="utf-8")).substitute(variables)
        _write(out_dir / template.stem, text)
    for name in EMPTY:
        _write(out_dir / f"{name}.conf", "; Nothing is set here: Asterisk's defaults hold.\n")
    for dialplan in sorted(DIALPLANS.glob("*.conf")):
        shutil.copyfile(dialplan, out_dir / dialplan.name)
        (out_dir / dialplan.name).chmod(0o644)


def _peer_section(site: SiteLab, peer: PeerLab) -> str:
    return PEER.substitute(peer=peer.name, peer_ip=peer.core_ip, site=site.name, secret=site.intersite_secret)


def _queue_section(site: SiteLab, service: str) -> str:
    # member => interface, penalty, name, state interface
    members = [f"member => PJSIP/{agent.name},0,{agent.name},PJSIP/{agent.name}" for agent in site.agents]
    return "\n".join([f"[{service}](service)", *members, ""])


def _refuse_odd_values(site: SiteLab) -> None:
    values = {
        "name": [site.name],
        "carrier_ip": [site.carrier_ip],
        "phones": [site.phones],
        "ami_secret": [site.ami_secret],
        "intersite_secret": [site.intersite_secret],
        "last_announcement": [site.last_announcement],
        "peers": [text for peer in site.peers for text in (peer.name, peer.core_ip)],
        "agents": [text for agent in site.agents for text in (agent.name, agent.password)],
        "dids": [text for pair in site.dids.items() for text in pair],
    }
    odd = [name for name, texts in values.items() if not all(PLAIN.fullmatch(text) for text in texts)]
    if odd:
        raise ValueError(f"{site.name!r}: only letters, digits and ._@:/- may stand in {', '.join(odd)}")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
