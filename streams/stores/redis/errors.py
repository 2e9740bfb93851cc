"""What goes wrong with Redis, in sentences that name the server and the way out, and no password."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    ClusterCrossSlotError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from streams.errors import Forgot, ReptideError, StoreError, Unavailable
from streams.stores.redis.access import Access

LOGIN_REFUSED = (AuthenticationError, AuthenticationWrongNumberOfArgsError, AuthorizationError)
DENIED_IN_SCRIPT = "user executing the script can't run"

PASSING = {
    "OutOfMemoryError|OOM command": "is full: it has reached `maxmemory`, which may be raised by "
    "`CONFIG SET maxmemory`, and nothing that it refused was written",
    "BusyLoadingError": "is still loading its data; wait until it has",
    "ReadOnlyError|READONLY": "is a replica, which takes no writes; wait for the failover, or name the primary",
    "MISCONF": "cannot save to its own disk and takes no writes; its log says why",
    "NOREPLICAS": "has too few replicas and takes no writes; bring them back",
    "ClusterDown|MasterDown|SlotNotCovered|cannot be connected": "misses a part of its cluster; "
    "bring the missing nodes back",
    "MovedError|AskError|TryAgain|ClusterError|SlotsMove": "is moving slots between its nodes; wait until it has, "
    "or finish what was left half done by `redis-cli --cluster fix`",
    "BUSY": "is busy with a script; wait, or end it by `SCRIPT KILL`",
}
"""States that end without a change to the program, by what the client calls them or the server says."""


class AnotherRun(RedisError):
    """Another process answers, or one with another history. No ConnectionError, which the client would try again."""


class AnotherPrimary(RedisError):
    """Names primaries that were none before."""


class SlotsMove(RedisError):
    """Slots moved while keys were looked through, and some may have been passed over."""


class TooFewReplicas(RedisError):
    """Names how many there are, of how many."""


class Words(NamedTuple):
    """What is said of one server."""

    address: str
    is_cluster: bool
    access: Access

    def denied(self, error: BaseException, command: tuple[Any, ...] = ()) -> StoreError | None:
        """Of a command that an ACL forbids; None where it was something else."""
        if isinstance(error, NoPermissionError) or DENIED_IN_SCRIPT in str(error):
            return StoreError(self.access.denied(str(error), command))
        return None

    def sentence(self, error: BaseException) -> ReptideError:
        """Of whatever the client raised."""
        told = re.split(", with args", f"{type(error).__name__}: {error}")[0]  # what follows quotes a row
        return self._of_another(error) or self._refusal(error, told) or self._passing(error, told)

    def _of_another(self, error: BaseException) -> ReptideError | None:
        """Of a server that may lack what another was told."""
        if isinstance(error, AnotherRun):
            return Forgot(
                f"Redis at {self.address} was restarted, or a replica took its place; it may have forgotten its last "
                "seconds"
            )
        if isinstance(error, AnotherPrimary):
            return Forgot(
                f"Redis Cluster of {self.address} has another primary, {error}, which may lack the last seconds"
            )
        if isinstance(error, TooFewReplicas):
            return Unavailable(
                f"Redis at {self.address} has everything on {error}; bring replicas back, or lower it: nothing is "
                "committed before, and nothing is lost"
            )
        return None

    def _refusal(self, error: BaseException, told: str) -> ReptideError | None:
        """Of what waiting does not mend."""
        if denied := self.denied(error):
            return denied
        if isinstance(error, LOGIN_REFUSED):
            return StoreError(self.access.login_refused)
        if untrusted := self.access.untrusted(told):
            return StoreError(untrusted)
        if isinstance(error, MovedError | ClusterCrossSlotError) and not self.is_cluster:
            return StoreError(f"Redis at {self.address} is a node of a cluster; set `cluster` to true")
        if "Cluster mode is not enabled" in told:
            return StoreError(f"Redis at {self.address} is no node of a cluster; set `cluster` to false")
        return None

    def _passing(self, error: BaseException, told: str) -> ReptideError:
        """Of what ends by itself, or by what an operator does; and of what nobody has heard of."""
        for state, words in PASSING.items():
            if re.search(state, told):
                return Unavailable(f"Redis at {self.address} {words}")
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            return Unavailable(
                f"Redis at {self.address} does not answer ({error}); bring it back, nothing is lost"
                f"{self.access.doubt(told)}"
            )
        return StoreError(
            f"Redis at {self.address} refuses a command ({told:.200}); check its version and ACL"
        )


def behind(error: BaseException) -> BaseException:
    """What made the client of a cluster give up, which takes a node that forbids `CLUSTER SLOTS` for one without."""
    cause = error.__cause__ if isinstance(error, RedisClusterException) else None
    asked = cause and cause.__context__
    return asked if isinstance(asked, NoPermissionError) else cause or error
