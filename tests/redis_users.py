"""The users of Redis that docs/operations.md writes out, for tests that run as one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

OPERATIONS = (Path(__file__).parents[1] / "docs" / "operations.md").read_text(encoding="utf-8")


class User(NamedTuple):
    """One of them, with the rules as `ACL SETUSER` takes them."""

    name: str
    password: str
    rules: Sequence[str]

    def commands(self) -> set[str]:
        """What it may run, without subcommands."""
        return {rule[1:].partition("|")[0] for rule in self.rules if rule.startswith("+")}

    def url(self, server: str) -> str:
        """Of a server, as this user."""
        return server.replace("//", f"//{self.name}:{self.password}@")

    def grant(self, node: Any, stream: str, more: Sequence[str] = (), but: Sequence[str] = ()) -> None:
        """Make it on a node, for another stream than the page's; without some rules, or with more."""
        rules = [rule.replace(":shop:", f":{stream}:") for rule in self.rules if rule not in but]
        node.execute_command("ACL", "SETUSER", self.name, "reset", "on", f">{self.password}", *rules, *more)


USERS = {
    name: User(name, password, rules.split())
    for name, password, rules in re.findall(
        r"^user (reptide-\w+) on >([\w-]+) (.*)$", OPERATIONS, re.MULTILINE
    )
}
ON_CLUSTER = re.findall(r"^```acl-cluster\n(.*)\n```$", OPERATIONS, re.MULTILINE)[0].split()
"""What every one of them needs besides on Redis Cluster."""
ON_REPLICAS = re.findall(r"^```acl-replicas\n(.*)\n```$", OPERATIONS, re.MULTILINE)[0].split()
"""What each that writes needs besides where replicas are waited for."""
TO_FORGET = re.findall(r"forgets tasks .*? takes `([^`]*)`", OPERATIONS)[0].split()
"""What a worker needs besides where messages without a value forget tasks."""
