"""Fair shares of what can be done, by max-min: nobody gets more than he asks for, and what he
leaves is divided among those who ask for more. PURE.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

#: Who asks for a little more than his share is not at fault: counts of short whiles waver.
TOLERANCE = 1.1
#: Most that are told apart in one while; further ones share one account.
PARTIES_MAX = 10_000


def fair_share(asked: Mapping[Hashable, int], capacity: float) -> float:
    """The most that anybody gets; whoever asks for less gets what he asks for.

    Args:
        asked: how much each asks for.
        capacity: how much there is for all of them.
    """
    left = capacity
    share = capacity
    for position, amount in enumerate(sorted(asked.values())):
        share = left / (len(asked) - position)
        if amount > share:
            break
        left -= amount
    return share


class Shares:
    """Who asks for how much, in whiles, and who asked for more than his share in the last one."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, int] = {}
        self._above: frozenset[Hashable] = frozenset()
        #: how many asked in the last while
        self.parties = 0

    def ask(self, party: Hashable) -> bool:
        """Count a request; returns whether its sender is within his share.

        Who did not ask in the last while is; of those who are too many to be told apart, nobody.
        """
        asked = self._asked
        count = asked.get(party)
        if count is None and len(asked) >= PARTIES_MAX:
            return False
        asked[party] = (count or 0) + 1
        return party not in self._above

    @property
    def above(self) -> int:
        """How many of them asked for more than their share."""
        return len(self._above)

    def turn(self, capacity: float) -> None:
        """End a while.

        Args:
            capacity: how much was done in it.
        """
        asked, self._asked = self._asked, {}
        share = fair_share(asked, capacity) * TOLERANCE
        self._above = frozenset(party for party, amount in asked.items() if amount > share)
        self.parties = len(asked)

    def clear(self) -> None:
        """Forget all of it."""
        self._asked.clear()
        self._above = frozenset()
        self.parties = 0
