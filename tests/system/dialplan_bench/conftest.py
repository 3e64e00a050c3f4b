"""One bench for all dialplan tests; each test begins on empty databases and without calls."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.dialplan_bench.bench import Bench, Site


@pytest.fixture(scope="session")
def whole_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("dialplan_bench")
    bench = Bench(folder)
    try:
        bench.start()
        yield bench
        for name in bench.sites:
            Path("/tmp/dpx/log-"+name).write_text(bench.logs(name))
    finally:
        bench.stop()


@pytest.fixture
def bench(whole_bench: Bench) -> Iterator[Bench]:
    for site in whole_bench.sites.values():
        site.hangup_all()
        site.delete("cp")
        site.delete("cpstate")
    yield whole_bench
    for host in ("carrier", "phones", "stranger"):
        whole_bench.stop_sipp(host)


@pytest.fixture
def nanchang(bench: Bench) -> Site:
    return bench.sites["nanchang"]


@pytest.fixture
def chengdu(bench: Bench) -> Site:
    return bench.sites["chengdu"]
