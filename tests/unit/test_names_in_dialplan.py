"""The names on which code and dialplan have to agree: contexts, keys of AstDB, events. Each side is read as text."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from controlplane.cli.check import CONTEXTS
from controlplane.contract.key import Key
from controlplane.contract.plan import LinkLine, Seat, SiteMode, Slice, Split, TrunkLine
from controlplane.site.calls import USER_EVENTS
from controlplane.site.compile import seat_objects, wanted
from controlplane.site.table import LETTERS

ROOT = Path(__file__).parents[2]
KIT = "\n".join(
    line
    for line in (ROOT / "dialplans" / "controlplane.conf").read_text(encoding="utf-8").splitlines()
    if not line.lstrip().startswith(";")
)
DEFINED = set(re.findall(r"^\[(cp-[a-z-]+)\]$", KIT, re.MULTILINE))
READ = set(re.findall(r"DB\((cp/[a-z]+)/", KIT)) | {
    f"cp/{kind}" for kind in re.findall(r"cp-split,s,1\((svc|out),", KIT)
}
RAISED = set(re.findall(r"UserEvent\((CP[A-Za-z]+),", KIT))
#: Kept for the daemon and the engineer, or read by PJSIP itself (sorcery.conf): no business of the dialplan.
NOT_READ = {"cp/applied", "cp/hold", "cp/endpoint", "cp/auth", "cp/aor"}


def literals(path: Path) -> list[str]:
    """Every text of a module that is no docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in docs
    ]


TEXTS = {path: literals(path) for path in sorted((ROOT / "controlplane").rglob("*.py"))}
NAMED = {c for texts in TEXTS.values() for t in texts for c in re.findall(r"(?:^|@)(cp-[a-z]+(?:-[a-z]+)*)", t)}
KEYS = {f"cp/{k}" for texts in TEXTS.values() for t in texts for k in re.findall(r"^cp/([a-z]+)(?:/|$)", t)}


def test_the_code_names_contexts_where_it_is_known_to() -> None:
    """If this fails, the reading of the code below has lost its sight."""
    for module, context in (
        ("run/asterisk.py", "cp-syn-svc"),
        ("run/asterisk.py", "cp-syn-out"),
        ("run/asterisk.py", "cp-syn-agent"),
        ("cli/check.py", "cp-from-site"),
        ("site/compile.py", "cp-from-agent"),
    ):
        assert any(context in text for text in TEXTS[ROOT / "controlplane" / module]), f"{module} {context}"
        assert context in NAMED


def test_every_context_that_the_code_names_is_defined() -> None:
    assert set() == NAMED - DEFINED


def test_every_context_that_is_entered_from_outside_is_checked_for() -> None:
    """From outside: none of the kit's own jumps leads there."""
    jumps = set(re.findall(r"(cp-[a-z-]+)(?:,s,1|\^)|,(cp-[a-z-]+)\)$", KIT, re.MULTILINE))
    inside = {name for pair in jumps for name in pair if name}
    assert set(CONTEXTS) == DEFINED - inside
    assert len(CONTEXTS) == len(set(CONTEXTS)) == 6


def test_every_key_that_the_code_writes_is_read_and_the_reverse() -> None:
    assert KEYS - READ == NOT_READ
    assert set() == READ - KEYS


@pytest.mark.parametrize("kind", ["endpoint", "auth", "aor"])
def test_pjsip_reads_the_objects_of_agents_from_the_family_that_is_written(kind: str) -> None:
    sorcery = (ROOT / "docker" / "asterisk" / "etc" / "sorcery.conf.tmpl").read_text(encoding="utf-8")
    assert re.search(rf"^{kind}\s*=\s*astdb,cp\b", sorcery, re.MULTILINE)
    assert f"cp/{kind}/home01" in seat_objects("home01", Seat("n", (), 0, "d"))


def test_what_a_slice_becomes_is_of_these_families_alone() -> None:
    split = Split(("a",), {"a": 100})
    piece = Slice(Key(1, 1, "h", 1), "p", "a", SiteMode.IN_SERVICE, {"1": "s"}, {"s": split}, {"g": split}, {"0": "g"},
                  {"t": TrunkLine("a", "e")}, {"b": LinkLine("e")}, {"home01": Seat("n", ("s",), 0, "d")})  # fmt: skip
    families = {"/".join(key.split("/")[:2]) for key in wanted(piece).astdb}
    assert families == (READ | NOT_READ) - {"cp/hold"}


def test_the_counters_of_the_dialplan_are_never_written() -> None:
    assert not [t for texts in TEXTS.values() for t in texts if "cpstate" in t]


def test_every_event_is_raised_and_every_raised_event_is_read() -> None:
    assert set(USER_EVENTS) == RAISED


def test_the_alphabet_of_the_slots_is_the_same() -> None:
    assert f"LOCAL(slots)={LETTERS})" in KIT


def test_variables_and_headers_of_synthetic_calls_are_read() -> None:
    names = {n for texts in TEXTS.values() for t in texts for n in re.findall(r"^__(CP_[A-Z]+)$", t)}
    assert names == {"CP_CALL", "CP_FORCE"}
    for name in names:
        assert f"${{{name}" in KIT
