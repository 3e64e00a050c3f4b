"""The topics of the outside contract, version 1: `controlplane/v1/<fleet>/…`."""

from __future__ import annotations

#: Characters of a response topic; a longer one is not answered.
MOST_REPLY_TOPIC = 200


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

    def may_reply_on(self, topic: str) -> bool:
        """Whether an answer may go to a response topic that came with a command: a sender must not have the coordinator
        write to a topic that the sender could not write to."""
        plain = not set(topic) & set("+#\0")
        return topic.startswith(f"{self.prefix}reply/") and plain and len(topic) < MOST_REPLY_TOPIC

    def site_in(self, topic: str) -> str | None:
        """The site whose word a topic carries, or None where it is no topic of a site."""
        head, _, tail = topic.removeprefix(self.prefix).partition("/")
        site, _, word = tail.partition("/")
        return site if topic.startswith(self.prefix) and head == "site" and site and word else None
