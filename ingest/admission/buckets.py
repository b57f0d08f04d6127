"""Token buckets: how much somebody may send in a while. PURE: the caller says what time it is.

A bucket fills at a constant rate up to its burst. What is taken may overdraw it: how many
events a batch holds is known only when it has been read, so the bucket then owes, and nothing
is taken from it until that is made up for. A request that is larger than the burst is let in
when the bucket is full: it could never be otherwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable


class Bucket:
    """Tokens that come back at a rate.

    Args:
        rate: tokens per second, above 0.
        burst: most that it holds; it begins full.
        now: monotonic seconds.
    """

    __slots__ = ("_at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.level = burst
        self._at = now

    def fill(self, now: float) -> None:
        """Bring `level` up to date."""
        if now > self._at:
            self.level = min(self.burst, self.level + (now - self._at) * self.rate)
            self._at = now

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may be taken; 0.0 when it may be now."""
        self.fill(now)
        return max(0.0, (min(amount, self.burst) - self.level) / self.rate)

    def take(self, amount: float) -> None:
        """Take tokens, whether they are there or not."""
        self.level -= amount

    @property
    def full(self) -> bool:
        """Whether nothing is missing, as of the last `fill`."""
        return self.level >= self.burst


class Allowance:
    """What somebody may send: events and bytes, each with a bucket or without.

    Args:
        events_per_second, bytes_per_second: None for no limit.
        burst_seconds: how long one may send at once what comes in that time.
        now: monotonic seconds.
    """

    __slots__ = ("buckets", "bytes", "events")

    def __init__(
        self,
        events_per_second: float | None,
        bytes_per_second: float | None,
        burst_seconds: float,
        now: float,
    ) -> None:
        self.events = self.bytes = None
        if events_per_second:
            burst = max(1.0, events_per_second * burst_seconds)
            self.events = Bucket(events_per_second, burst, now)
        if bytes_per_second:
            burst = max(1.0, bytes_per_second * burst_seconds)
            self.bytes = Bucket(bytes_per_second, burst, now)
        named = (("events", self.events), ("bytes", self.bytes))
        self.buckets = [(name, bucket) for name, bucket in named if bucket is not None]

    def lacks(self, events: int, size: int, now: float) -> tuple[str, Bucket, float] | None:
        """What is short for a request, the bucket with the longest wait; None when nothing is."""
        short = None
        longest = 0.0
        for name, bucket in self.buckets:
            wait = bucket.wait(events if name == "events" else size, now)
            if wait > longest:
                short, longest = (name, bucket, wait), wait
        return short

    def charge(self, events: int, size: int) -> None:
        """Take from both."""
        if self.events is not None:
            self.events.take(events)
        if self.bytes is not None:
            self.bytes.take(size)


class Allowances:
    """Allowances by name, so many at most: the one that was not asked for longest goes.

    Who comes back after that begins with a full bucket; the bound is what memory costs.
    """

    def __init__(self, make: Callable[[float], Allowance], most: int) -> None:
        self._make = make
        self._most = most
        self._kept: OrderedDict[str, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, name: str, now: float) -> Allowance:
        """The allowance of a name; a new one has full buckets."""
        found = self._kept.get(name)
        if found is not None:
            self._kept.move_to_end(name)
            return found
        if len(self._kept) >= self._most:
            self._kept.popitem(last=False)
        found = self._kept[name] = self._make(now)
        return found
