"""Where followers' error was before the tail: to be imported from `eventstore.tail`."""

from eventstore.tail import FollowerTooSlow

__all__ = ["FollowerTooSlow"]
