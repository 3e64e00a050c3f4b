"""Everything the containers mount, written under build/lab/<project>: sites, broker, daemons, and compose's variables."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

from tests.lab.credentials import Credentials
from tests.lab.daemon_config import write_daemon_config
from tests.lab.images import Images
from tests.lab.layout import DAEMON_ACCOUNTS, PERSONS, SERVICES, SITES, Layout, agents_of
from tests.lab.shell import LabError

#: Compose's variables. Passed by environment: the two composes do not agree on how an env file quotes.
VARIABLES = "compose.json"


def write_files(layout: Layout, images: Images) -> dict[str, str]:
    """Write all of it; returns compose's variables."""
    layout.home.mkdir(parents=True, exist_ok=True)
    layout.home.chmod(0o700)  # the sites' files hold secrets and must be readable inside their containers
    credentials = Credentials(layout.secrets)
    _write_sites(layout, credentials)
    _write_broker(layout, credentials)
    write_daemon_config(layout, credentials)
    return _write_variables(layout, images)


def _write_sites(layout: Layout, credentials: Credentials) -> None:
    render = _render_module(layout.checkout)
    for site in SITES:
        described = render.SiteLab(
            name=site,
            carrier_ip=layout.trunk("world"),
            peers=[render.PeerLab(name=peer, core_ip=layout.core(peer)) for peer in SITES if peer != site],
            agents=[
                render.AgentLab(name=agent, password=credentials.password(f"agent-{agent}"))
                for agent in agents_of(site)
            ],
            phones=layout.phones,
            dids={did: service for service, did in SERVICES.items()},
            ami_secret=credentials.password(f"ami-{site}"),
            intersite_secret=credentials.password("intersite"),
        )
        render.render_site(described, layout.home / site / "asterisk")


def _render_module(checkout: Path) -> ModuleType:
    # docker/ is no package (a module of that name belongs to others), so the file is loaded by its path.
    path = checkout / "docker" / "asterisk" / "render.py"
    spec = importlib.util.spec_from_file_location("lab_site_render", path)
    if spec is None or spec.loader is None:
        raise LabError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _write_broker(layout: Layout, credentials: Credentials) -> None:
    folder = layout.home / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(layout.checkout / "docker" / "broker" / "mosquitto.conf", folder)
    shutil.copy(layout.checkout / "deploy" / "mosquitto.acl", folder / "acl")
    lines = [f"{account}:{credentials.password(f'mqtt-{account}')}" for account in (*DAEMON_ACCOUNTS, *PERSONS)]
    accounts = folder / "accounts"
    accounts.touch(mode=0o600)
    accounts.write_text("\n".join(lines) + "\n")


def read_variables(layout: Layout) -> dict[str, str]:
    """What the last `write_files` said; LabError when there was none."""
    path = layout.home / VARIABLES
    if not path.exists():
        raise LabError("this lab was never started: `python -m tests.lab up`")
    said: dict[str, str] = json.loads(path.read_text())
    return said


def _write_variables(layout: Layout, images: Images) -> dict[str, str]:
    world = {
        "trunk": layout.trunk("world"),
        "access": layout.access("world"),
        "sites": {site: {"trunk": layout.trunk(site), "access": layout.access(site)} for site in SITES},
    }
    variables = {
        "CP_PROJECT": layout.project,
        "CP_HOME": str(layout.home),
        "CP_NET": layout.net,
        "CP_IMAGE_ASTERISK": images.asterisk,
        "CP_IMAGE_DAEMON": images.daemon,
        "CP_IMAGE_BROKER": images.broker,
        "CP_IMAGE_WORLD": images.world,
        "CP_WORLD": json.dumps(world, separators=(",", ":")),
    }
    (layout.home / VARIABLES).write_text(json.dumps(variables, indent=2) + "\n")
    return variables
