"""New aliases and similar names: a move to a misspelled alias bypasses the policies of the right one."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

from rollforward import v1
from services.listings.globs import is_literal
from services.registry.deciders import policies
from services.registry.deciders.policies import binding_move
from services.registry.deciders.state import State

MAX_NEAR = 3
MIN_LIKENESS = 0.7
MAX_COMPARED = 200
"""How many names are compared with a new one: two of 255 characters take a millisecond, on the event loop."""

_NUMBER = re.compile(r"[0-9]+")


def new_alias(alias: str, state: State, declared: policies.State, names: Collection[str]) -> v1.NewAlias:
    """Return the notice about an alias that was not set before.

    Args:
        alias: The alias.
        state: Its model.
        declared: All policies.
        names: All names that the model ever had.
    """
    known = {name for name, current in state.aliases.items() if current.version} | set(_named(declared))
    near = [_near(name, state, declared, names) for name in near_names(alias, known)]
    # A name that only a policy of other models has is of no use here.
    return v1.NewAlias(model=state.name, alias=alias, near=[other for other in near if other.version or other.policies])


def near_names(name: str, known: Collection[str]) -> list[str]:
    """Return the names that are near another, the nearest first: by case and spelling, not by a number alone."""
    spellings: dict[str, list[str]] = {}
    for other in sorted(known):
        if other != name and _NUMBER.sub("0", other) != _NUMBER.sub("0", name):
            spellings.setdefault(other.casefold(), []).append(other)
    closest = sorted(spellings, key=lambda spelling: abs(len(spelling) - len(name)))[:MAX_COMPARED]
    close = get_close_matches(name.casefold(), closest, n=MAX_NEAR, cutoff=MIN_LIKENESS)
    return [other for spelling in close for other in spellings[spelling]][:MAX_NEAR]


def _named(declared: policies.State) -> list[str]:
    return [policy.aliases for policy in declared.policies.values() if policy.aliases and is_literal(policy.aliases)]


def _near(name: str, state: State, declared: policies.State, names: Collection[str]) -> v1.NearAlias:
    binding = [policy.name for policy in binding_move(declared, names, name)]
    return v1.NearAlias(alias=name, version=state.alias(name).version, policies=binding)
