"""The topics of the outside contract, version 1: `controlplane/v1/<fleet>/…`."""

from __future__ import annotations


class Topics:
    """The topics of one fleet."""

    def __init__(self, fleet: str) -> None:
        self.prefix = f"controlplane/v1/{fleet}/"
        self.command = self.prefix + "command"
        self.plan = self.prefix + "plan"
        self.authority = self.prefix + "authority"
        self.claim = self.prefix + "claim"
        self.all_operations = self.prefix + "operation/+"
        self.all_reports = self.prefix + "site/+/report"
        self.all_promises = self.prefix + "site/+/promise"
        self.all_calls = self.prefix + "site/+/calls"
        self.all_alive = self.prefix + "site/+/alive"

    def operation(self, id_: str) -> str:
        return f"{self.prefix}operation/{id_}"

    def slice(self, site: str) -> str:
        return f"{self.prefix}slice/{site}"

    def probe(self, site: str) -> str:
        return f"{self.prefix}probe/{site}"

    def report(self, site: str) -> str:
        return f"{self.prefix}site/{site}/report"

    def promise(self, site: str) -> str:
        return f"{self.prefix}site/{site}/promise"

    def alive(self, site: str) -> str:
        return f"{self.prefix}site/{site}/alive"

    def calls(self, site: str) -> str:
        return f"{self.prefix}site/{site}/calls"

    def reply(self, account: str, id_: str) -> str:
        return f"{self.prefix}reply/{account}/{id_}"
