"""The policies' gRPC methods."""

from __future__ import annotations

from eventstore import CommandHandler, Projector
from rollforward import v1
from services.registry import POLICIES_STREAM
from services.registry.deciders.policies import State
from services.registry.gates import evidence, replay
from services.registry.gates.evaluator import GateEvaluator
from services.registry.gates.expression import check_expression
from services.registry.live_view import LiveView
from services.registry.queries import policies
from services.rpc.context import Context, metadata
from services.rpc.positions import wait_for
from services.validation import check_alias


class PolicyServicer(v1.PolicyServiceServicer):
    """Policies, and gates that are tried.

    Args:
        commands: The policies' commands.
        rows: The registry's rows.
        live: What the log says now.
        judge: Asks gates.
    """

    def __init__(
        self, commands: CommandHandler[State], projector: Projector, live: LiveView, gate_evaluator: GateEvaluator
    ) -> None:
        self._commands = commands
        self._projector = projector
        self._live = live
        self._gate_evaluator = gate_evaluator

    async def SetPolicy(self, request: v1.SetPolicyRequest, context: Context) -> v1.SetPolicyResponse:
        """Create or change a policy."""
        return v1.SetPolicyResponse(position=await self._done(request, context))

    async def RemovePolicy(self, request: v1.RemovePolicyRequest, context: Context) -> v1.RemovePolicyResponse:
        """Remove a policy."""
        return v1.RemovePolicyResponse(position=await self._done(request, context))

    async def _done(self, request: v1.SetPolicyRequest | v1.RemovePolicyRequest, context: Context) -> int:
        done = await self._commands.handle(POLICIES_STREAM, request, metadata(request, context))
        # What binds commands is what was heard.
        await wait_for(self._live, done.position, context)
        return done.position

    async def ListPolicies(self, request: v1.ListPoliciesRequest, context: Context) -> v1.ListPoliciesResponse:
        """Return all policies by name."""
        return await self._projector.query(policies.policies)

    async def TestGate(self, request: v1.TestGateRequest, context: Context) -> v1.TestGateResponse:
        """Return what a gate says of versions that exist."""
        check_expression(request.expression, of_move=bool(request.alias))
        if request.alias:
            check_alias(request.alias)
        cases = await self._projector.query(lambda connection: replay.versions_to_try(connection, request))
        return v1.TestGateResponse(evidence=await self._gate_evaluator.ask(request.expression, cases))

    async def ReplayGate(self, request: v1.ReplayGateRequest, context: Context) -> v1.ReplayGateResponse:
        """Return what a gate would have said of past moves."""
        check_expression(request.expression, of_move=True)
        past = await self._projector.query(lambda connection: replay.moves_to_try(connection, request))
        answers = await self._gate_evaluator.ask(request.expression, [past_move.case for past_move in past])
        for past_move, answer in zip(past, answers, strict=True):
            past_move.move.evidence.CopyFrom(answer)
        return replay.page_of(past, request)

    async def CheckEvidence(self, request: v1.CheckEvidenceRequest, context: Context) -> v1.CheckEvidenceResponse:
        """Compute recorded gate decisions again."""
        return await evidence.check(self._projector.store, request.after)
