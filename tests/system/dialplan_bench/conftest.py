"""One bench for all dialplan tests; each test leaves empty databases and no calls."""

from collections.abc import Iterator

import pytest

from tests.lab.engine import ensure_engine
from tests.lab.images import ensure_images
from tests.lab.layout import layout_of
from tests.system.dialplan_bench.bench import ROOT, Bench, Site


@pytest.fixture(scope="session")
def whole_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    layout = layout_of(ROOT)
    ensure_engine(layout.build)
    bench = Bench(tmp_path_factory.mktemp("dialplan_bench"), ensure_images(layout).asterisk)
    try:
        bench.start()
        yield bench
    finally:
        bench.stop()


#: Asterisk's own word when a caller hangs up while the far side's name comes in: nothing went wrong.
HARMLESS = "Session already DISCONNECTED"


def _complaints(bench: Bench, site: str) -> list[str]:
    lines = bench.logs(site).splitlines()
    return [line for line in lines if ("ERROR" in line or "syntax error" in line) and HARMLESS not in line]


@pytest.fixture
def bench(whole_bench: Bench) -> Iterator[Bench]:
    before = {name: len(_complaints(whole_bench, name)) for name in whole_bench.sites}
    yield whole_bench
    for host in ("carrier", "phones", "stranger"):
        whole_bench.stop_sipp(host)
    for site in whole_bench.sites.values():
        site.hangup_all()
        site.delete("cp")
        site.delete("cpstate")
    # Above all no "syntax error" of an expression, which Asterisk takes for an empty value and goes on.
    said = {name: _complaints(whole_bench, name)[count:] for name, count in before.items()}
    assert not any(said.values()), said


@pytest.fixture
def nanchang(bench: Bench) -> Site:
    return bench.sites["nanchang"]


@pytest.fixture
def chengdu(bench: Bench) -> Site:
    return bench.sites["chengdu"]
