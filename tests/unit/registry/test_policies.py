"""Policies: what may be declared, and what a policy binds."""

from __future__ import annotations

import pytest

from eventstore.errors import Rejected
from eventstore.testing import given
from rollforward import v1
from services.listings.globs import matcher
from services.registry.deciders.policies import (
    MAX_BYTES,
    MAX_POLICIES,
    POLICIES,
    State,
    binding_move,
    binding_registration,
    from_rows,
)

GATE = "candidate.metrics.f1 > 0.5"
PROTECTED = v1.Policy(name="protected", models="*", aliases="prod-*", reason_required=True)
GATED = v1.Policy(name="gated", models="fraud*", aliases="champion", gate=GATE)
CHECKED = v1.Policy(name="checked", models="fraud*", gate="run.metrics.f1 > 0.5")


def set_request(policy: v1.Policy) -> v1.SetPolicyRequest:
    """Return a request that declares a policy."""
    return v1.SetPolicyRequest(policy=policy, reason="because", request_id="1")


def changed(policy: v1.Policy, **values: object) -> v1.Policy:
    """Return a copy of a policy with other values."""
    other = v1.Policy()
    other.CopyFrom(policy)
    for name, value in values.items():
        setattr(other, name, value)
    return other


def policy_set(to: v1.Policy, before: v1.Policy | None = None) -> v1.PolicySet:
    """Return the event of a declared or changed policy."""
    payload = v1.PolicySet(to=to)
    if before:
        getattr(payload, "from").CopyFrom(before)
    return payload


class TestSet:
    """Declaring and changing policies."""

    @pytest.mark.parametrize("policy", [PROTECTED, GATED, CHECKED], ids=lambda policy: policy.name)
    def test_new_policy_is_declared(self, policy: v1.Policy) -> None:
        given(POLICIES).when(set_request(policy)).then(policy_set(policy))

    def test_policy_is_changed(self) -> None:
        other = changed(PROTECTED, aliases="champion")
        given(POLICIES, policy_set(PROTECTED)).when(set_request(other)).then(policy_set(other, PROTECTED))

    def test_same_policy_changes_nothing(self) -> None:
        given(POLICIES, policy_set(PROTECTED)).when(set_request(PROTECTED)).then()

    def test_removed_policy_is_declared_again(self) -> None:
        past = given(POLICIES, policy_set(PROTECTED), v1.PolicyRemoved(policy=PROTECTED))
        past.when(set_request(PROTECTED)).then(policy_set(PROTECTED))

    @pytest.mark.parametrize(
        ("policy", "reason"),
        [
            pytest.param(v1.Policy(), "INVALID_POLICY", id="no name"),
            pytest.param(changed(PROTECTED, name="a b"), "INVALID_POLICY", id="name with a space"),
            pytest.param(changed(PROTECTED, name="n" * 256), "INVALID_POLICY", id="too long name"),
            pytest.param(changed(PROTECTED, models=""), "INVALID_POLICY", id="no models"),
            pytest.param(changed(PROTECTED, models="m" * 256), "INVALID_POLICY", id="too long pattern"),
            pytest.param(changed(PROTECTED, models=" fraud"), "INVALID_POLICY", id="leading space"),
            pytest.param(changed(PROTECTED, aliases="a\n"), "INVALID_POLICY", id="line break"),
            pytest.param(changed(PROTECTED, reason_required=False), "INVALID_POLICY", id="no requirement"),
            pytest.param(changed(PROTECTED, recent_days=4_000_000), "INVALID_POLICY", id="ten thousand years"),
            pytest.param(changed(GATED, gate="candidate.metrics.f1"), "INVALID_GATE", id="not a boolean"),
            pytest.param(changed(GATED, gate="run.metrics.f1 > 0.5"), "INVALID_GATE", id="registration's variable"),
            pytest.param(changed(CHECKED, gate=GATE), "INVALID_GATE", id="a move's variable"),
        ],
    )
    def test_invalid_policy_is_rejected(self, policy: v1.Policy, reason: str) -> None:
        given(POLICIES).when(set_request(policy)).then_rejected(reason)

    def test_too_many_policies_are_rejected(self) -> None:
        full = given(POLICIES, *(policy_set(changed(PROTECTED, name=f"p{n}")) for n in range(MAX_POLICIES)))
        full.when(set_request(PROTECTED)).then_rejected("INVALID_POLICY")
        other = changed(PROTECTED, name="p0", aliases="champion")
        full.when(set_request(other)).then(policy_set(other, changed(PROTECTED, name="p0")))

    def test_too_large_policies_are_rejected(self) -> None:
        wide = [changed(GATED, name=f"p{n}", gate=f"'{'é' * 1_900}' != '' || {GATE}") for n in range(542)]
        full = given(POLICIES, *map(policy_set, wide))
        assert sum(policy.ByteSize() for policy in wide) < MAX_BYTES
        full.when(set_request(changed(GATED, gate=f"{GATE} || 'r' != '{'r' * 3_900}'"))).then_rejected("INVALID_POLICY")
        full.when(set_request(GATED)).then(policy_set(GATED))
        full.when(set_request(changed(wide[0], gate=GATE))).then(policy_set(changed(wide[0], gate=GATE), wide[0]))


class TestRemove:
    """Removing policies."""

    def test_policy_is_removed(self) -> None:
        removal = v1.RemovePolicyRequest(name="protected")
        given(POLICIES, policy_set(PROTECTED)).when(removal).then(v1.PolicyRemoved(policy=PROTECTED))

    def test_removal_of_unknown_policy_is_rejected(self) -> None:
        removed = given(POLICIES, policy_set(PROTECTED), v1.PolicyRemoved(policy=PROTECTED))
        for past in (given(POLICIES), removed):
            past.when(v1.RemovePolicyRequest(name="protected")).then_rejected("POLICY_NOT_FOUND")


def declared(*policies: v1.Policy) -> State:
    """Return the state with these policies."""
    return given(POLICIES, *(policy_set(policy) for policy in policies)).state


class TestBinding:
    """Binding: a policy binds names that match its patterns, case-sensitively."""

    ALL = declared(PROTECTED, GATED, CHECKED, v1.Policy(name="all", models="*", aliases="*", reason_required=True))

    @pytest.mark.parametrize(
        ("model", "alias", "names"),
        [
            ("fraud", "champion", ["all", "gated"]),
            ("fraud-eu", "champion", ["all", "gated"]),
            ("churn", "champion", ["all"]),
            ("Fraud", "champion", ["all"]),
            ("churn", "prod-eu", ["all", "protected"]),
            ("fraud", "PROD-eu", ["all"]),
        ],
    )
    def test_policies_bind_matching_moves(self, model: str, alias: str, names: list[str]) -> None:
        assert [policy.name for policy in binding_move(self.ALL, [model], alias)] == names

    def test_policies_bind_matching_registrations(self) -> None:
        assert binding_registration(self.ALL, ["fraud"]) == (CHECKED,)
        assert binding_registration(self.ALL, ["churn"]) == ()

    def test_policy_binds_former_names_of_model(self) -> None:
        assert binding_registration(self.ALL, ["churn", "fraud"]) == (CHECKED,)
        assert binding_move(declared(GATED), ["churn", "fraud"], "champion") == (GATED,)

    def test_state_from_rows_equals_state_from_events(self) -> None:
        state = from_rows([GATED, PROTECTED], 2)
        assert state == declared(PROTECTED, GATED)
        assert binding_move(state, ["fraud"], "champion") == (GATED,)

    def test_changed_policy_binds_at_once(self) -> None:
        state = declared(GATED, changed(GATED, aliases="challenger"))
        assert (binding_move(state, ["fraud"], "champion"), state.revision) == ((), 2)

    def test_each_pattern_is_compiled_once(self) -> None:
        state = declared(*(changed(PROTECTED, name=f"p{n}", models=f"team-{n}-*") for n in range(100)))
        assert binding_move(state, ["team-7-x"], "prod-eu")
        compiled = matcher.cache_info().misses
        assert not any(binding_move(state, ["fraud"], "champion") for _ in range(100))
        assert matcher.cache_info().misses <= compiled + 101

    def test_escaped_pattern_binds_model_with_wildcard_in_name(self) -> None:
        state = declared(changed(GATED, models="fraud[*]"))
        assert [bool(binding_move(state, [name], "champion")) for name in ("fraud*", "fraud-eu")] == [True, False]


def test_other_message_raises_type_error() -> None:
    with pytest.raises(TypeError):
        POLICIES.decide(v1.MoveAliasRequest(), State())


def test_policy_name_in_rejection_is_truncated() -> None:
    refusal = given(POLICIES).when(v1.RemovePolicyRequest(name="x" * 10_000)).then_rejected("POLICY_NOT_FOUND")
    assert isinstance(refusal, Rejected)
    assert len(refusal.metadata["policy"]) == 255
