"""Headers are believed from the other sites alone, and a site is known by its address and its digest."""

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import ADDRESS, Bench, Site, docker, split_value

pytestmark = pytest.mark.system


def uac(bench: Bench, host: str, to: str, service: str, log: str, *args: str, user: str = "13800000001") -> list[str]:
    """One caller with forged headers; what happened to it, in order."""
    done = bench.sipp(
        host, ADDRESS[to], "-sf", "/sipp/uac.xml", "-s", service, "-key", "from", user,
        "-m", "1", "-trace_logs", "-log_file", log, *args,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return bench.read(host, log).split("\n")[:-1]


def test_forged_headers_of_the_carrier_have_no_effect(bench: Bench, nanchang: Site) -> None:
    nanchang.put("cp", "did/95556", "claims")
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 100}))
    since = nanchang.ami.mark()
    assert uac(bench, "carrier", "nanchang", "95556", "/tmp/forged.log")[-1] == "ANSWERED"
    [arrive] = nanchang.events(event("CPArrive"), since)
    assert not arrive["Call"].startswith("forged")
    assert (arrive["From"], arrive["Hops"], arrive["Id"], arrive["Syn"]) == ("carrier", "0", "claims", "0")
    assert int(arrive["Waited"]) < 1000


@pytest.mark.parametrize("service", ["svc-claims", "trk*nc-carrier*013800000001", "s", "claims"])
def test_the_carrier_reaches_dids_only(bench: Bench, service: str) -> None:
    assert uac(bench, "carrier", "nanchang", service, "/tmp/dids.log") == ["REFUSED 404"]


@pytest.mark.parametrize("service", ["svc-claims", "95556"])
@pytest.mark.parametrize("user", ["site-chengdu", "carrier"])
def test_a_name_of_a_site_or_carrier_from_another_address_is_rejected(bench: Bench, user: str, service: str) -> None:
    nanchang = bench.sites["nanchang"]
    since = nanchang.ami.mark()
    assert uac(bench, "stranger", "nanchang", service, "/tmp/stranger.log", user=user) == ["REFUSED 401"]
    assert nanchang.events(event("CPArrive"), since) == []


def test_a_site_s_name_and_even_its_digest_from_another_address_are_rejected(bench: Bench) -> None:
    bench.sipp(
        "stranger", ADDRESS["nanchang"], "-sf", "/sipp/agent_uac.xml", "-s", "svc-claims", "-key", "agent", "site-chengdu",
        "-au", "site-chengdu", "-ap", "intersite-secret", "-m", "1", "-trace_logs", "-log_file", "/tmp/digest.log",
    )  # fmt: skip
    assert bench.read("stranger", "/tmp/digest.log") == "REFUSED 401\n"


def test_the_address_of_a_site_without_its_digest_is_rejected(bench: Bench, nanchang: Site) -> None:
    container = bench.sites["chengdu"].container
    docker("cp", str(bench.scenarios), f"{container}:/tmp/sipp")
    since = nanchang.ami.mark()
    docker(
        "exec", container, "sipp", ADDRESS["nanchang"], "-p", "5070", "-sf", "/tmp/sipp/uac.xml", "-s", "svc-claims",
        "-key", "from", "site-chengdu", "-m", "1", "-nostdin", "-trace_logs", "-log_file", "/tmp/nodigest.log",
    )  # fmt: skip
    assert docker("exec", container, "cat", "/tmp/nodigest.log") == "REFUSED 401\n"
    assert nanchang.events(event("CPArrive"), since) == []
