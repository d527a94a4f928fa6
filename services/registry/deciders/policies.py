"""The rules of policies: what may be declared, and which of them bind a registration or a move."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias, assert_never

from google.protobuf.message import Message
from rpds import HashTrieMap

from eventstore import Decider, Kind, RecordedEvent, Rejected
from rollforward import v1
from services.listings.globs import matcher
from services.registry.events import policy_event
from services.registry.gates.expression import check_expression
from services.validation import check_text

MAX_PATTERN = 255
MAX_POLICIES = 1000
MAX_BYTES = 2 * 1024 * 1024  # they are listed in one answer
MAX_RECENT_DAYS = 3650

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True, slots=True)
class State:
    """All policies by name, and the revision of the last change of one; 0 when there never was one."""

    policies: HashTrieMap[str, v1.Policy] = field(default_factory=HashTrieMap)
    revision: int = 0

    def __hash__(self) -> int:
        """Policies have none of their own."""
        return hash(self.revision)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the policies that bind a command say of it.

    Attributes:
        policy_revision: The revision of the policies.
        reason_required: The names of the policies that ask for a reason.
        evidence: What their gates saw and said.
        skipped: The expressions of gates that were not asked.
        candidate: With evidence of a move: the version that was judged; 0 when it was not known.
        current: The version that held the alias then.
        champion: The version that held the model's alias `champion` then.
    """

    policy_revision: int = 0
    reason_required: tuple[str, ...] = ()
    evidence: tuple[v1.GateEvidence, ...] = ()
    skipped: tuple[str, ...] = ()
    candidate: int = 0
    current: int = 0
    champion: int = 0


PolicyCommand: TypeAlias = v1.SetPolicyRequest | v1.RemovePolicyRequest


def decide(command: object, state: State) -> Sequence[Message]:
    """Return the events of a command.

    Raises:
        Rejected: The command breaks a rule.
        TypeError: It is not a command of the policies.
    """
    if not isinstance(command, PolicyCommand):
        raise TypeError(f"expected a command of the policies, got {type(command).__name__}")
    match command:
        case v1.SetPolicyRequest():
            return _set(command.policy, state)
        case v1.RemovePolicyRequest():
            return _remove(command, state)
        case _:
            assert_never(command)


def _set(policy: v1.Policy, state: State) -> Sequence[Message]:
    _check(policy)
    before = state.policies.get(policy.name)
    if before == policy:
        return []
    if before is None and len(state.policies) >= MAX_POLICIES:
        raise _invalid(policy, f"there are already {MAX_POLICIES} policies, the maximum. Remove one first")
    others = sum(other.ByteSize() for name, other in state.policies.items() if name != policy.name)
    if others + policy.ByteSize() > MAX_BYTES:
        raise _invalid(policy, f"expected at most {MAX_BYTES} bytes for all policies together")
    return [v1.PolicySet(to=policy, **{"from": before} if before else {})]


def _remove(command: v1.RemovePolicyRequest, state: State) -> Sequence[Message]:
    policy = state.policies.get(command.name)
    if policy is None:
        name = command.name[:MAX_PATTERN]
        raise Rejected(Kind.NOT_FOUND, "POLICY_NOT_FOUND", f"no policy has the name {name!r}", policy=name)
    return [v1.PolicyRemoved(policy=policy)]


def _check(policy: v1.Policy) -> None:
    if not _NAME.fullmatch(policy.name):
        raise _invalid(policy, "expected a name of 1 to 255 letters, digits, '-' and '_'")
    check_text(policy.models, "model pattern", MAX_PATTERN, "INVALID_POLICY")
    check_text(policy.aliases, "alias pattern", MAX_PATTERN, "INVALID_POLICY", min_length=0)
    if not (policy.reason_required or policy.gate):
        raise _invalid(policy, "it has no effect: expected reason_required or a gate")
    if policy.recent_days > MAX_RECENT_DAYS:
        raise _invalid(policy, f"expected recent_days of at most {MAX_RECENT_DAYS}, got {policy.recent_days}")
    if policy.gate:
        check_expression(policy.gate, of_move=bool(policy.aliases))


def _invalid(policy: v1.Policy, why: str) -> Rejected:
    return Rejected(Kind.INVALID, "INVALID_POLICY", f"invalid policy: {why}", policy=policy.name[:MAX_PATTERN])


def evolve(state: State, event: RecordedEvent) -> State:
    """Return the state after an event."""
    payload = policy_event(event.data)
    match payload:
        case v1.PolicySet():
            return State(state.policies.insert(payload.to.name, payload.to), event.append_end)
        case v1.PolicyRemoved():
            return State(state.policies.discard(payload.policy.name), event.append_end)
        case _:
            assert_never(payload)


def from_rows(policies: Iterable[v1.Policy], revision: int) -> State:
    """Return the state that rows hold at a revision."""
    return State(HashTrieMap({policy.name: policy for policy in policies}), revision)


def binding_move(state: State, names: Collection[str], alias: str) -> tuple[v1.Policy, ...]:
    """Return the policies that bind a move of an alias, by name; `names` are all that its model ever had."""
    return tuple(rule.policy for rule in _rules(state) if rule.of_alias(alias) and any(map(rule.of_model, names)))


def binding_registration(state: State, names: Collection[str]) -> tuple[v1.Policy, ...]:
    """Return the policies that bind a registration, by name; `names` are all that its model ever had."""
    return tuple(rule.policy for rule in _rules(state) if not rule.policy.aliases and any(map(rule.of_model, names)))


@dataclass(frozen=True, slots=True)
class _Rule:
    policy: v1.Policy
    of_alias: Callable[[str], object]
    of_model: Callable[[str], object]


# Every move looks up its policies, and mostly there are none.
@lru_cache(maxsize=16)
def _rules(state: State) -> tuple[_Rule, ...]:
    policies = sorted(state.policies.values(), key=lambda policy: policy.name)
    return tuple(_Rule(policy, matcher(policy.aliases), matcher(policy.models)) for policy in policies)


POLICIES: Decider[State] = Decider(State(), decide, evolve)
