"""The rules between the parts of `fleet.toml`: each one found, with its path, all at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controlplane.contract.fleet import Fleet, Site, faults, warnings
from tests.unit.test_fleet_driver import FLEET


def with_(path: str, value: Any) -> Fleet:
    """The good fleet with one thing changed."""
    content: Any = msgspec.to_builtins(FLEET)
    at = content
    *way, last = path.split("/")
    for part in way:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return msgspec.convert(content, Fleet)


def test_the_good_fleet_has_neither_faults_nor_warnings() -> None:
    assert faults(FLEET) == []
    assert warnings(FLEET) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("trunks/nc-carrier/site", "beijing", ["trunks.nc-carrier.site: site 'beijing' is not defined; known: chengdu"]),
        ("services/claims/home", ["nanchang", "chengdu", "beijing"], ["services.claims.home: site 'beijing' is not"]),
        ("services/claims/home", ["nanchang", "chengdu", "nanchang"], ["services.claims.home: name each site"]),
        ("services/claims/home", ["nanchang"], ["services.claims.shares.chengdu: this site is not in home"]),
        ("services/claims/shares", {"nanchang": 60, "chengdu": 41}, ["services.claims.shares: the shares add up to 101"]),
        ("services/claims/shares", {}, ["services.claims.shares: the shares add up to 0, not to 100"]),
        ("services/claims/dids", ["95556", "95557"], ["services.enquiries.dids: 95557 belongs to claims already"]),
        ("services/claims/dids", ["95556", "95556"], ["services.claims.dids: 95556 belongs to claims already"]),
        ("groups/national/shares", {"nc-carrier": 99}, ["groups.national.shares: the shares add up to 99"]),
        ("groups/national/shares", {"x": 100}, ["groups.national.shares: trunk 'x' is not defined"]),
        ("groups/national/prefixes", [], ["groups.national.prefixes: name at least one prefix"]),
        ("groups/mobile", {"prefixes": ["0"], "shares": {"nc-carrier": 100}},
         ["groups.mobile.prefixes: 0 belongs to national already"]),
        ("ingress/95558", {"trunks": ["nc-carrier"]}, ["ingress.95558: no service has this DID"]),
        ("ingress/95556/trunks", ["nc-carrier", "x"], ["ingress.95556.trunks: trunk 'x' is not defined"]),
        ("ingress/95556/trunks", [], ["ingress.95556.trunks: name at least one trunk"]),
    ],
)  # fmt: skip
def test_each_rule_names_its_path(path: str, value: Any, expected: list[str]) -> None:
    found = faults(with_(path, value))
    assert len(found) == len(expected)
    for fault, start in zip(found, expected, strict=True):
        assert fault.startswith(start)


def test_an_empty_home_is_a_fault_and_all_faults_come_at_once() -> None:
    fleet = with_("services/claims", {"dids": ["95557"], "home": [], "shares": {"nanchang": 10}})
    found = "\n".join(faults(fleet))
    for part in (
        "claims.home: name each",
        "claims.shares.nanchang: this site",
        "add up to 10",
        "95557 belongs",
        "95556: no service",
    ):
        assert part in found


def test_a_fleet_without_sites_and_one_with_too_many() -> None:
    assert any(f.startswith("sites: no site is named") for f in faults(msgspec.structs.replace(FLEET, sites={})))
    most = {f"site{n}": Site() for n in range(60)}
    assert faults(msgspec.structs.replace(FLEET, sites=FLEET.sites | most)) == []
    [fault] = faults(msgspec.structs.replace(FLEET, sites=FLEET.sites | most | {"one-more": Site()}))
    assert fault.startswith("sites: 63 sites")


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("ingress/95556", None, "no ingress is described for this DID of claims"),
        ("ingress/95556/trunks", ["nc-carrier"], "one way in (nanchang)"),
        ("ingress/95556/rule", "single", "one way in (chengdu, nanchang)"),
        ("trunks/cd-carrier/site", "nanchang", "one way in (nanchang)"),
        ("ingress/95556/triggers", [], "nothing is said to make the carrier change trunks"),
    ],
)
def test_each_risk_of_a_did_is_a_warning(path: str, value: Any, part: str) -> None:
    fleet = with_(path, value)
    assert faults(fleet) == []
    assert any(w.startswith("ingress.95556: ") and part in w for w in warnings(fleet))


def test_the_hash_changes_with_the_content_only() -> None:
    assert with_("sites/nanchang/link_cap", 100).hash == FLEET.hash
    assert with_("sites/nanchang/link_cap", 101).hash != FLEET.hash
