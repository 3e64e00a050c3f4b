"""Starts the bench's containers from docker/asterisk and takes them away again.

The image is the lab's. CP_BENCH_SUBNET overrides the first three bytes of its network. Names are the checkout's own; what an
earlier run of this checkout left is removed first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

from tests.system.dialplan_bench.ami import Ami, Message

ROOT = Path(__file__).resolve().parents[3]
SIPP = Path(__file__).resolve().parent / "sipp"
DOCKER = "docker"
CHECKOUT = hashlib.sha256(str(ROOT).encode()).digest()
PREFIX = f"dpexp-{CHECKOUT.hex()[:8]}"
SUBNET = os.environ.get("CP_BENCH_SUBNET", f"10.{200 + CHECKOUT[0] % 50}.{CHECKOUT[1]}")
ADDRESS = {
    "nanchang": f"{SUBNET}.11",
    "chengdu": f"{SUBNET}.12",
    "carrier": f"{SUBNET}.66",
    "phones": f"{SUBNET}.130",
    "stranger": f"{SUBNET}.200",
}
SITES = ("nanchang", "chengdu")
DIDS = {"95556": "claims", "95557": "enquiries"}
SLOTS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def docker(*args: str, check: bool = True, within_s: float = 60) -> str:
    done = subprocess.run([DOCKER, *args], capture_output=True, text=True, timeout=within_s, check=False)
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def wait_until(what: str, check: Callable[[], bool], *, within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)


def table(shares: list[int]) -> str:
    """A slot table whose every prefix is within 1 of each share (quota rule: earliest deadline among those below quota)."""
    taken = [0] * len(shares)
    slots = ""
    for turn in range(1, 101):
        due = [i for i, share in enumerate(shares) if taken[i] * 100 < share * turn]
        chosen = min(due, key=lambda i: ((taken[i] + 1) / shares[i], i))
        taken[chosen] += 1
        slots += SLOTS[chosen]
    return slots


def split_value(shares: Mapping[str, int], plan: str = "1.1.1") -> str:
    return sealed(f"1:{plan}:{','.join(shares)}:{table(list(shares.values()))}")


def sealed(body: str) -> str:
    return f"{hashlib.md5(body.encode()).hexdigest()}:{body}"


def load_render() -> ModuleType:
    """docker/ is no package: the renderer is loaded from its file."""
    spec = importlib.util.spec_from_file_location("asterisk_render", ROOT / "docker/asterisk/render.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Site:
    """One Asterisk of the bench."""

    def __init__(self, name: str, container: str, secret: str) -> None:
        self.name = name
        self.container = container
        self._secret = secret
        self.ami = Ami(DOCKER, container, secret)

    def rx(self, command: str) -> str:
        return docker("exec", self.container, "asterisk", "-rx", command)

    def put(self, family: str, key: str, value: str) -> None:
        answer = self.ami.action("DBPut", Family=family, Key=key, Val=value)
        assert answer["Response"] == "Success", answer

    def delete(self, family: str, key: str = "") -> None:
        """One key, or the whole family; absent is as good as deleted."""
        self.ami.action("DBDelTree", Family=family) if not key else self.ami.action("DBDel", Family=family, Key=key)

    def database(self, prefix: str) -> dict[str, str]:
        rows = [line.partition(":") for line in self.rx(f"database show {prefix}").splitlines() if line.startswith("/")]
        return {key.strip(): value.strip() for key, _, value in rows}

    def call(self, where: str, variables: dict[str, str] | None = None, *, hold_s: float = 2) -> None:
        """Originate Local/<where>/n and forget it: it holds for so long once answered."""
        self.ami.send(
            "Originate",
            variables,
            Channel=f"Local/{where}/n",
            Application="Wait",
            Data=str(hold_s),
            Timeout="60000",
            Async="true",
        )

    def contact_of(self, peer: str) -> str:
        """What OPTIONS say of another site: Avail or Unavail."""
        lines = [line for line in self.rx("pjsip show contacts").splitlines() if f"site-{peer}/" in line]
        return lines[0].split()[-2] if lines else ""

    def reaches(self, peer: str) -> bool:
        return self.contact_of(peer) == "Avail"

    def hangup_caller(self, told: Message) -> None:
        """The caller of an originated call hangs up; `told` is any event of the kit about that call."""
        caller = told["Channel"].removesuffix(";2") + ";1"
        answer = self.ami.action("Hangup", Channel=caller)
        assert answer["Response"] == "Success", answer
        wait_until(f"{caller} is gone", lambda: told["Channel"] not in self.rx("core show channels concise"))

    def hangup_all(self) -> None:
        self.rx("channel request hangup all")
        wait_until(f"no channel at {self.name}", lambda: "0 active channels" in self.rx("core show channels count"))

    def events(self, wanted: Callable[[Message], bool], since: int = 0) -> list[Message]:
        return self.ami.seen(wanted, since)


class Bench:
    """Two sites, a carrier's host, the phones' host and a stranger's host."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        self.image = image
        self.scenarios = SIPP
        self.sites: dict[str, Site] = {}
        self._network = f"{PREFIX}-net-{os.getpid()}"

    def name(self, role: str) -> str:
        return f"{PREFIX}-{role}-{os.getpid()}"

    def start(self) -> None:
        self._remove_what_an_earlier_run_left()
        render = load_render()
        docker("network", "create", "--internal", "--subnet", f"{SUBNET}.0/24", self._network)
        for name in SITES:
            etc = self.folder / name
            render.render_site(
                render.SiteLab(
                    name=name,
                    carrier_ip=ADDRESS["carrier"],
                    peers=[render.PeerLab(other, ADDRESS[other]) for other in SITES if other != name],
                    agents=[render.AgentLab(f"{name[0]}{k:02d}", f"pw-{name[0]}{k:02d}") for k in range(1, 41)],
                    phones=f"{ADDRESS['phones']}:6000",
                    dids=DIDS,
                    ami_secret="ami-secret",
                    intersite_secret="intersite-secret",
                    last_announcement="beep",
                ),
                etc,
            )
            self._run(name, "-v", f"{etc}:/etc/asterisk:ro")
        for host in ("carrier", "phones", "stranger"):
            self._run(host, "-v", f"{SIPP}:/sipp:ro", "--entrypoint", "sleep", command=["infinity"])
        for name in SITES:
            self.booted(name)
            self.sites[name] = Site(name, self.name(name), "ami-secret")
        for here, there in (SITES, SITES[::-1]):
            site = self.sites[here]
            wait_until(f"{here} reaches {there}", partial(site.reaches, there), within_s=15)

    def booted(self, name: str) -> None:
        command = ("exec", self.name(name), "asterisk", "-rx", "core waitfullybooted")
        wait_until(f"{name} is up", lambda: "fully booted" in docker(*command, check=False), within_s=30)

    def restart(self, name: str) -> None:
        """`docker start` of a site that died, and a new AMI connection."""
        self.sites[name].ami.close()
        docker("start", self.name(name))
        self.booted(name)
        self.sites[name] = Site(name, self.name(name), "ami-secret")

    def logs(self, name: str) -> str:
        done = subprocess.run([DOCKER, "logs", self.name(name)], capture_output=True, text=True, timeout=30, check=True)
        return done.stdout + done.stderr

    def stop(self) -> None:
        for site in self.sites.values():
            site.ami.close()
        self._remove_what_an_earlier_run_left()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sipp(self, host: str, *args: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run SIPp on a host to its end; its exit status is 0 when every call went as its scenario says."""
        command = [DOCKER, "exec", self.name(host), "sipp", *args, "-nostdin"]
        return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False)

    def sipp_in_background(self, host: str, *args: str) -> None:
        docker("exec", "-d", self.name(host), "sipp", *args, "-nostdin")

    def stop_sipp(self, host: str) -> None:
        docker("exec", self.name(host), "sh", "-c", STOP_SIPP)

    def read(self, host: str, path: str) -> str:
        return docker("exec", self.name(host), "cat", path)

    def _run(self, role: str, *options: str, command: list[str] | None = None) -> None:
        network = ("--network", self._network, "--ip", ADDRESS[role])
        docker("run", "-d", "--name", self.name(role), *network, *options, self.image, *(command or []))

    def _remove_what_an_earlier_run_left(self) -> None:
        containers = docker("ps", "-aq", "--filter", f"name=^{PREFIX}-").split()
        if containers:
            docker("rm", "-f", *containers)
        networks = docker("network", "ls", "-q", "--filter", f"name=^{PREFIX}-").split()
        if networks:
            docker("network", "rm", *networks)


# The image has no procps: ends every sipp of the container.
STOP_SIPP = r"""
for p in /proc/[0-9]*; do
    case "$(cat $p/comm 2>/dev/null)" in sipp) kill -KILL "${p#/proc/}" ;; esac
done; true
"""
