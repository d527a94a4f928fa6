"""Policies and gates for registrations and moves, and their evaluation on past or existing data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.connection import new_request_id
from rollforward._transport.default import default_client_function
from rollforward._transport.paging import collect
from rollforward._transport.resource import Resource
from rollforward.errors import InvalidRequest
from rollforward.references import UINT32_MAX, VersionLike, revision, timestamp, version_number

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable
    from datetime import datetime

# The service evaluates each move again, over two or three runs.
_MOVES_PER_PAGE = 100


class Policies(Resource):
    """Policies, and the gates that they contain."""

    def set(
        self,
        name: str,
        *,
        models: str = "*",
        aliases: str = "",
        reason_required: bool = False,
        gate: str = "",
        recent_days: int = 0,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Set a policy, or change the one with that name; it applies to every later command.

        It applies to the models that match `models`: to moves of the aliases that match `aliases`, or without `aliases`
        to registration. Patterns use "*", "?" and "[...]". `gate` is a CEL expression: over `run` at a registration,
        over `candidate`, `current` and `champion` at a move. A rollback skips the gate if the alias pointed to the
        version within `recent_days`; 0 means 30.

        Raises:
            InvalidRequest: INVALID_POLICY, INVALID_GATE, REQUEST_ID_REUSED.
            Unavailable: No result within the timeout.
        """
        if not 0 <= recent_days <= UINT32_MAX:
            raise InvalidRequest("INVALID_POLICY", f"recent_days must be >= 0, got {recent_days}")
        policy = v1.Policy(
            name=name,
            models=models,
            aliases=aliases,
            reason_required=reason_required,
            gate=gate,
            recent_days=recent_days,
        )
        request = v1.SetPolicyRequest(policy=policy, reason=reason, request_id=request_id or new_request_id())
        self._connection.call(self._connection.policies.SetPolicy, request)

    def remove(self, name: str, *, reason: str = "", request_id: str | None = None) -> None:
        """Remove a policy.

        Raises:
            NotFound: POLICY_NOT_FOUND.
            InvalidRequest: REQUEST_ID_REUSED.
            Unavailable: No result within the timeout.
        """
        request = v1.RemovePolicyRequest(name=name, reason=reason, request_id=request_id or new_request_id())
        self._connection.call(self._connection.policies.RemovePolicy, request)

    def list(self) -> builtins.list[v1.Policy]:
        """List all policies, by name.

        Raises:
            Unavailable: No result within the timeout.
        """
        return list(self._connection.call(self._connection.policies.ListPolicies, v1.ListPoliciesRequest()).policies)

    def try_gate(
        self,
        expression: str,
        model: str,
        versions: Iterable[VersionLike] = (),
        *,
        alias: str = "",
    ) -> builtins.list[v1.GateEvidence]:
        """Evaluate a gate on existing versions, in their order, without writing anything.

        Without `versions`, evaluate it on all that are not deleted, newest first, at most 1,000. With `alias` it is a
        gate for moves of that alias, and the alias's version is `current`; without, it is a gate for registration.

        Raises:
            InvalidRequest: INVALID_GATE, INVALID_VERSION.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            PreconditionFailed: MODEL_RENAMED.
            Unavailable: No result within the timeout.
        """
        numbers = [version_number(model, version) for version in versions]
        request = v1.TestGateRequest(expression=expression, model=model, versions=numbers, alias=alias)
        return list(self._connection.call(self._connection.policies.TestGate, request).evidence)

    def check_evidence(self, *, after: int = 0) -> v1.CheckEvidenceResponse:
        """Compute every recorded gate result again from the evidence in its event, without writing anything.

        Checks the events after position `after` of the registry log. The response counts events and evidence up to its
        `position`, the log's end, and lists wrong results under `unfounded`: an intact log has none.

        Raises:
            InvalidRequest: INVALID_REVISION, POSITION_AHEAD.
            Unavailable: No result within the timeout.
        """
        total = v1.CheckEvidenceResponse(position=revision(after) or 0)
        while not total.done:
            part = self._connection.call(
                self._connection.policies.CheckEvidence, v1.CheckEvidenceRequest(after=total.position)
            )
            total.events += part.events
            total.evidence += part.evidence
            total.unfounded.extend(part.unfounded)
            total.position, total.done = part.position, part.done
        return total

    def replay_gate(
        self,
        expression: str,
        *,
        models: str = "",
        aliases: str = "",
        since: datetime | str | None = None,
        limit: int | None = None,
    ) -> builtins.list[v1.ReplayedMove]:
        """Evaluate a gate on past moves, oldest first, without writing anything. `limit` None returns all.

        Only moves of the models and aliases that match the patterns, recorded at `since` or later: an aware datetime or
        an RFC 3339 time.

        Raises:
            InvalidRequest: INVALID_GATE, INVALID_TIME.
            Unavailable: No result within the timeout.
        """
        query = v1.ReplayGateRequest(expression=expression, models=models, aliases=aliases, since=timestamp(since))

        def fetch(size: int, token: str) -> tuple[Iterable[v1.ReplayedMove], str]:
            query.page_size, query.page_token = size, token
            page = self._connection.call(self._connection.policies.ReplayGate, query)
            return page.moves, page.next_page_token

        return collect(fetch, limit, page=_MOVES_PER_PAGE)


set_policy = default_client_function("set_policy", Policies, Policies.set)
remove_policy = default_client_function("remove_policy", Policies, Policies.remove)
list_policies = default_client_function("list_policies", Policies, Policies.list)
try_gate = default_client_function("try_gate", Policies, Policies.try_gate)
check_evidence = default_client_function("check_evidence", Policies, Policies.check_evidence)
replay_gate = default_client_function("replay_gate", Policies, Policies.replay_gate)
