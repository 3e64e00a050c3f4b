"""The routing table of 100 slots that a split becomes, and its value in AstDB.

Law: after any number of decisions each target's count is within 1 of its share. The order of the slots is Tijdeman's
solution of the chairman assignment problem (R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32,
1980): the deviation of each of k targets never exceeds 1 - 1/(2k - 2). Smooth weighted round robin does not keep it.
"""

from __future__ import annotations

import hashlib
from fractions import Fraction

from controlplane.contract.errors import PayloadError
from controlplane.contract.plan import Split

SLOTS = 100
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#: An AMI header line must be shorter than 1024 characters; a value of 1015 was the longest that worked.
MOST_VALUE = 1000


def slots(shares: tuple[int, ...]) -> tuple[int, ...]:
    """The target (its index in `shares`) of each of the 100 slots. `shares` are whole percents that add up to 100."""
    if sum(shares) != SLOTS or min(shares) < 0:
        raise PayloadError(f"shares {shares} are not whole percents that add up to {SLOTS}")
    live = [i for i, share in enumerate(shares) if share]
    if len(live) == 1:
        return (live[0],) * SLOTS
    slack = Fraction(1, 2 * len(live) - 2)
    given = dict.fromkeys(live, 0)
    table = []
    for turn in range(1, SLOTS + 1):
        due = [i for i in live if Fraction(shares[i] * turn, SLOTS) - given[i] >= slack]
        chosen = min(due, key=lambda i: ((1 - slack + given[i]) * Fraction(SLOTS, shares[i]), i))
        given[chosen] += 1
        table.append(chosen)
    return tuple(table)


def split_value(split: Split) -> str:
    """The value of a split as the dialplan reads it: `<md5>:1:<plan>:<names>:<table>` (docs/reference.md)."""
    names = split.order
    unknown = sorted(set(split.shares) - set(names))
    if unknown:
        raise PayloadError(f"shares for {', '.join(unknown)}, which the order does not name")
    if len(names) > len(LETTERS):
        raise PayloadError(f"{len(names)} targets; a table holds {len(LETTERS)}")
    table = "".join(LETTERS[i] for i in slots(tuple(split.shares.get(name, 0) for name in names)))
    body = f"1:{split.since}:{','.join(names)}:{table}"
    value = f"{hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()}:{body}"
    if len(value) > MOST_VALUE:
        raise PayloadError(
            f"the routing value has {len(value)} characters; AMI takes {MOST_VALUE}: fewer or shorter names"
        )
    return value
