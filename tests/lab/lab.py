"""The lab as tests and the demo see it: bring it up, break it, look into it, take it away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.lab import health
from tests.lab.credentials import Credentials
from tests.lab.daemon_config import BROKER_PORT
from tests.lab.engine import compose_command, ensure_engine
from tests.lab.files import read_variables, write_files
from tests.lab.images import ensure_images
from tests.lab.layout import DEFAULT_SERVICES, NETWORK_OF, SITES, Layout, layout_of
from tests.lab.shell import Finished, LabError, run, step, tail
from tests.lab.world import World

READY_TIMEOUT_S = 60.0
UP_TIMEOUT_S = 180.0
POLL_S = 0.1


class Account(msgspec.Struct, frozen=True):
    """A login at the broker."""

    user: str
    password: str


class Lab:
    """One lab of one checkout. Services are named as in docker/compose.yml."""

    def __init__(self, checkout: Path) -> None:
        self.layout: Layout = layout_of(checkout)
        self.credentials = Credentials(self.layout.secrets)
        self.world = World(self)

    # ---- life

    def ensure_engine(self) -> None:
        """Return when a Docker Engine answers; see tests.lab.engine."""
        ensure_engine(self.layout.build)

    def up(self, services: Sequence[str] | None = None) -> None:
        """Build what is missing, start these services (all of them by default), return when each is ready."""
        wanted = tuple(services or DEFAULT_SERVICES)
        self.ensure_engine()
        variables = write_files(self.layout, ensure_images(self.layout))
        with step(f"start {' '.join(wanted)}"):
            self._compose_up(wanted, variables)
        self.wait_ready(wanted)
        if {*SITES, "world"} <= set(wanted):
            self.wait_ways_open()

    def wait_ways_open(self) -> None:
        """Until the carrier and the sites see each other, in each direction; LabError that names the way that is shut."""
        missing: str | None = None

        def seen() -> bool:
            nonlocal missing
            missing = health.ways_missing(self)
            return missing is None

        try:
            self.wait_for("every way is open", seen, within_s=READY_TIMEOUT_S)
        except LabError as fault:
            raise LabError(f"{fault}: {missing}") from None

    def _compose_up(self, wanted: Sequence[str], variables: dict[str, str]) -> None:
        try:
            self.compose(["up", "-d", "--no-build", *wanted], variables=variables)
        except LabError as fault:
            if "overlap" in str(fault):
                raise LabError(
                    f"{fault}\n{self.layout.net}.0/24 is in use here: set CP_LAB_SUBNET to a free /24"
                ) from fault
            raise

    def down(self) -> None:
        """Take away every container, network and volume of this lab."""
        with step("take the lab away"):
            self.cleanup()

    def cleanup(self) -> None:
        """The same, by label: it also finds what a crashed run left behind, and needs no file of that run."""
        label = f"label=com.docker.compose.project={self.layout.project}"
        containers = run(["docker", "ps", "-aq", "--filter", label], timeout_s=30).out.split()
        if containers:
            run(["docker", "rm", "-f", "-v", *containers], timeout_s=120)
        for kind in ("network", "volume"):
            left = run(["docker", kind, "ls", "-q", "--filter", label], timeout_s=30).out.split()
            if left:
                run(["docker", kind, "rm", *left], timeout_s=60)

    def wipe(self, *services: str) -> None:
        """Take these services away with all they remember; `up` makes them new."""
        there = [self.layout.container(service) for service in services if self._exists(service)]
        if not there:
            return
        form = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
        volumes = run(["docker", "inspect", "-f", form, *there], timeout_s=30).out.split()
        run(["docker", "rm", "-f", *there], timeout_s=60)
        if volumes:
            run(["docker", "volume", "rm", *volumes], timeout_s=60)

    def _exists(self, service: str) -> bool:
        return run(["docker", "inspect", self.layout.container(service)], timeout_s=20, check=False).code == 0

    def compose(self, arguments: Sequence[str], *, variables: dict[str, str] | None = None) -> Finished:
        """Any compose command on this lab."""
        argv = compose_command(self.layout.build)
        argv += ["-p", self.layout.project, "-f", str(self.layout.checkout / "docker" / "compose.yml")]
        return run([*argv, *arguments], timeout_s=UP_TIMEOUT_S, env=variables or read_variables(self.layout))

    def wait_ready(self, services: Iterable[str]) -> None:
        """Until each of these is ready for calls (or logins); LabError with its log when it is not in time."""
        wanted = tuple(services)
        with step(f"wait until ready: {' '.join(wanted)}"):
            for service in wanted:
                self._wait_one(service, wanted)

    def _wait_one(self, service: str, among: Sequence[str]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while (missing := health.why_not_ready(self, service, among)) is not None:
            if not self.is_running(service):
                raise LabError(f"{service} ended by itself; its log:\n{tail(self.logs(service))}")
            if time.monotonic() > deadline:
                raise LabError(
                    f"{service}: {missing}, after {READY_TIMEOUT_S:g} s; its log:\n{tail(self.logs(service))}"
                )
            time.sleep(POLL_S)

    # ---- faults

    def kill(self, *services: str) -> None:
        """SIGKILL, as when the host loses power: of a site, its address is gone as well."""
        run(["docker", "kill", "-s", "KILL", *(self.layout.container(s) for s in services)], timeout_s=30)

    def start(self, *services: str) -> None:
        """Start again what was killed or stopped, and wait until it is ready. A daemon that still ran in the network of a
        site that was killed is restarted with it: that network went with the site. Of a site, the carrier's OPTIONS are
        answered again."""
        running_before = {daemon for daemon, site in NETWORK_OF.items() if site in services and self.is_running(daemon)}
        for service in sorted(services, key=lambda name: name in NETWORK_OF):
            run(["docker", "start", self.layout.container(service)], timeout_s=60)
        for daemon in running_before - set(services):
            run(["docker", "restart", "-t", "1", self.layout.container(daemon)], timeout_s=60)
        self.wait_ready([*services, *sorted(running_before - set(services))])
        sites = [site for site in services if site in SITES]
        if sites and self.is_running("world"):
            self.wait_for(
                f"the carrier sees {', '.join(sites)}",
                lambda: health.ingress_missing(self, sites) is None,
                within_s=READY_TIMEOUT_S,
            )

    def stop(self, *services: str) -> None:
        """A normal stop."""
        if services:
            run(["docker", "stop", "-t", "5", *(self.layout.container(s) for s in services)], timeout_s=60)

    def restart(self, *services: str) -> None:
        """A normal stop and start."""
        for service in services:
            run(["docker", "restart", "-t", "5", self.layout.container(service)], timeout_s=60)
        self.wait_ready(services)

    def pause(self, *services: str) -> None:
        """Freeze: alive for the network, dead for everybody who waits."""
        run(["docker", "pause", *(self.layout.container(s) for s in services)], timeout_s=30)

    def unpause(self, *services: str) -> None:
        run(["docker", "unpause", *(self.layout.container(s) for s in services)], timeout_s=30)

    def thaw(self) -> None:
        """Unpause whatever is frozen."""
        label = f"label=com.docker.compose.project={self.layout.project}"
        frozen = run(["docker", "ps", "-q", "--filter", label, "--filter", "status=paused"], timeout_s=30).out.split()
        if frozen:
            run(["docker", "unpause", *frozen], timeout_s=30)

    def cut(self, service: str, network: str) -> None:
        """Take a host off one network (core, trunk, access)."""
        run(
            ["docker", "network", "disconnect", f"{self.layout.project}_{network}", self.layout.container(service)],
            timeout_s=30,
        )

    def mend(self, service: str, network: str) -> None:
        """Give it that network back, with its address."""
        address = {"core": self.layout.core, "trunk": self.layout.trunk, "access": self.layout.access}[network](service)
        name = f"{self.layout.project}_{network}"
        run(
            ["docker", "network", "connect", "--ip", address, name, self.layout.container(service)],
            timeout_s=30,
        )

    # ---- looking in

    def is_running(self, service: str) -> bool:
        """Whether its container runs (frozen counts as running)."""
        argv = ["docker", "inspect", "-f", "{{.State.Running}}", self.layout.container(service)]
        done = run(argv, timeout_s=20, check=False)
        return done.code == 0 and done.out.strip() == "true"

    def exec(
        self, service: str, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 30, check: bool = True
    ) -> Finished:
        """Run a program in the service's container. LabError when it ends non-zero (`check`) or takes too long."""
        head = ["docker", "exec", *(["-i"] if stdin is not None else []), self.layout.container(service)]
        return run([*head, *argv], timeout_s=timeout_s, stdin=stdin, check=check)

    def exec_json(self, service: str, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 30) -> Any:
        """The same for a program that prints one JSON value."""
        return msgspec.json.decode(self.exec(service, argv, stdin=stdin, timeout_s=timeout_s).out)

    def logs(self, service: str) -> str:
        """All that the service has written so far."""
        done = run(["docker", "logs", self.layout.container(service)], timeout_s=30, check=False)
        return done.out + done.err

    def asterisk_cli(self, site: str, command: str) -> str:
        """What Asterisk's command line answers, such as `core show channels`."""
        return self.exec(site, ["asterisk", "-rx", command]).out

    def cpu_s(self, service: str) -> float:
        """Seconds of processor that the container has used since it was made (cgroup v2, else v1)."""
        script = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage"
        said = self.exec(service, ["sh", "-c", script]).out.split()
        return int(said[said.index("usage_usec") + 1]) / 1e6 if "usage_usec" in said else int(said[0]) / 1e9

    def wait_for(self, what: str, seen: Callable[[], bool], *, within_s: float) -> float:
        """Until `seen()` is true; returns the seconds it took, LabError naming `what` when it was not in time."""
        begun = time.monotonic()
        while not seen():
            if time.monotonic() - begun > within_s:
                raise LabError(f"not within {within_s:g} s: {what}")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    # ---- the broker

    def broker_address(self) -> tuple[str, int]:
        """Reachable from this host and from every container on the core network."""
        return self.layout.core("broker"), BROKER_PORT

    def account(self, user: str) -> Account:
        """The broker login of a person (`wang`, `observer`) or a daemon (`site-nanchang`, `coordinator`, …)."""
        return Account(user, self.credentials.password(f"mqtt-{user}"))
