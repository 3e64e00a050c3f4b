"""The dialplan kit read as text: its own jumps land, what is read from outside is filtered, the code's names exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.system.dialplan_bench.bench import ROOT, load_render

KIT = ROOT / "dialplans" / "controlplane.conf"
LINES = KIT.read_text(encoding="utf-8").splitlines()
CODE = [line for line in LINES if not line.lstrip().startswith(";")]
# Keys that the dialplan has no business with: the daemon's own mark, an engineer's hold, and PJSIP's objects (sorcery.conf).
NOT_READ_HERE = {"applied", "hold", "endpoint", "auth", "aor"}


def contexts() -> dict[str, list[str]]:
    """Context name to its lines of code."""
    found: dict[str, list[str]] = {}
    for line in CODE:
        if section := re.fullmatch(r"\[([a-z-]+)\]", line):
            found[section[1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


CONTEXTS = contexts()
FROM_SITE_INCLUDE = {"cp-did-default"}


def test_every_context_says_what_it_is_for() -> None:
    for number, line in enumerate(LINES):
        if line.startswith("["):
            assert LINES[number - 1].startswith("; "), f"no comment above {line}"


def test_every_jump_lands() -> None:
    text = "\n".join(CODE)
    targets = set(re.findall(r"(?:Gosub|Goto)\((cp-[a-z-]+),", text))
    targets |= set(re.findall(r"[?:](cp-[a-z-]+),s,1\)", text))
    targets |= set(re.findall(r"[bU]\((cp-[a-z-]+)\^", text)) | set(re.findall(r",(cp-[a-z-]+)\)$", text, re.MULTILINE))
    assert {"cp-split", "cp-headers", "cp-answered", "cp-agent-answered", "cp-last"} <= targets
    assert targets <= set(CONTEXTS) | FROM_SITE_INCLUDE


@pytest.mark.parametrize("name", list(CONTEXTS))
def test_every_label_exists_in_its_extension(name: str) -> None:
    for extension in re.split(r"\nexten => ", "\n".join(CONTEXTS[name])):
        labels = set(re.findall(r"^ same => n\(([a-z]+)\)", extension, re.MULTILINE))
        used = set(re.findall(r"Goto\(([a-z]+)\)", extension))
        for yes, no in re.findall(r"GotoIf\(.*\?([a-z]*)(?::([a-z]*))?\)$", extension, re.MULTILINE):
            used |= {yes, no} - {""}
        assert used <= labels, f"{name}: {used - labels}"


@pytest.mark.parametrize(
    "source", [r"\$\{EXTEN(?::\d+)?\}", r"PJSIP_HEADER\(read", r"CUT\(EXTEN", r"CUT\((?:link|CP_TRUNK)"]
)
def test_what_comes_from_outside_is_filtered_at_once(source: str) -> None:
    for line in CODE:
        for match in re.finditer(source, line):
            before = line[: match.start()]
            measured = before.endswith("${LEN(")
            assert measured or re.search(r"FILTER\([^,]+,\$?\{?$", before), line.strip()


def test_the_names_that_the_code_uses_exist_here() -> None:
    kit = KIT.read_text(encoding="utf-8")
    kinds = set(re.findall(r"cp/([a-z]+)/", kit)) | NOT_READ_HERE
    states = {"svc", "out", "synsvc", "synout"}
    for path in sorted((ROOT / "controlplane").rglob("*.py")):
        for text in literals(path):
            for context in re.findall(r"(?:^|@)(cp(?:-[a-z]+)+)", text):
                assert context in set(CONTEXTS) | FROM_SITE_INCLUDE, f"{path.name}: no context {context}"
            for family, kind in re.findall(r"(?:^|/)(cp|cpstate)/([a-z]+)", text):
                assert kind in (kinds if family == "cp" else states), f"{path.name}: no key {family}/{kind}"
            for name in re.findall(r"^(CP[A-Z][a-z]+)$", text):
                assert f"UserEvent({name}," in kit, f"{path.name}: no event {name}"


def literals(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_a_site_is_rendered_whole(tmp_path: Path) -> None:
    render = load_render()
    site = render.SiteLab(
        name="nanchang",
        carrier_ip="192.0.2.66",
        peers=[render.PeerLab("chengdu", "192.0.2.12"), render.PeerLab("weifang", "192.0.2.13")],
        agents=[render.AgentLab("n01", "pw-1"), render.AgentLab("n02", "pw-2")],
        phones="192.0.2.130:6000",
        dids={"95556": "claims", "95557": "enquiries", "95558": "claims"},
        ami_secret="ami-s3cret",
        intersite_secret="site-s3cret",
    )
    render.render_site(site, tmp_path / "etc")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "etc").iterdir()}
    assert files["controlplane.conf"] == KIT.read_text(encoding="utf-8")
    assert "CP_SITE=nanchang" in files["controlplane-site.conf"]
    assert "exten => 95558,1,Return(claims)" in files["controlplane-site.conf"]
    assert files["queues.conf"].count("[claims](service)") == 1
    assert files["queues.conf"].count("member => PJSIP/n02,") == 2
    assert files["pjsip.conf"].count("identify_by = ip\n") == 2
    assert "contact = sip:n02@192.0.2.130:6000" in files["pjsip.conf"]
    assert "match = 192.0.2.13\n" in files["pjsip.conf"]
    assert "secret = ami-s3cret" in files["manager.conf"]
    assert "s3cret" not in repr(site)
    unfilled = [name for name, text in files.items() if name != "controlplane.conf" and re.search(r"\$[a-z{]", text)]
    assert unfilled == []


@pytest.mark.parametrize("bad", ["x\nsecret = y", "a;b", "a b", "", "[x]", "$x"])
def test_a_value_that_would_change_the_file_around_it_is_refused(tmp_path: Path, bad: str) -> None:
    render = load_render()
    site = render.SiteLab(
        name="nanchang",
        carrier_ip="192.0.2.66",
        peers=[],
        agents=[],
        phones="192.0.2.130:6000",
        dids={},
        ami_secret=bad,
        intersite_secret="s",
    )
    with pytest.raises(ValueError, match="ami_secret"):
        render.render_site(site, tmp_path)
