"""The judge: asks the gates that bind a command, over what the registry knows of runs and versions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from eventstore import Projector
from rollforward import v1
from services.registry.deciders import policies
from services.registry.deciders.policies import GateResult, binding_move, binding_registration
from services.registry.deciders.state import State
from services.registry.gates.expression import MOVE, evaluate
from services.registry.projection import runs

CHAMPION = "champion"
MAX_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """A move to be judged: in a model's state, by all names that the model ever had.

    With `skip`, gates are named and not asked.
    """

    state: State
    names: Collection[str]
    alias: str
    version: int
    skip: bool = False


class GateEvaluator:
    """Asks gates.

    Args:
        known_runs: What the registry knows of runs.
    """

    def __init__(self, known_runs: Projector) -> None:
        self._runs = known_runs

    async def registration(
        self, declared: policies.State, names: Collection[str], gate: str, run_id: str, tags: Mapping[str, str]
    ) -> tuple[v1.GateEvidence | None, GateResult]:
        """Return what a model's own gate says of a registration (None: it has none), and what policies say.

        `names` are all that the model ever had.

        Raises:
            Rejected: RUN_NOT_FOUND when a gate is to judge a run that is not known.
            StoreUnavailable: What is known of runs is behind.
        """
        binding = binding_registration(declared, names)
        gates = [policy for policy in binding if policy.gate]
        run, position = v1.GateRun(), 0
        if run_id and (gate or gates):
            await self._catch_up()
            run, position = await self._runs.query(lambda connection: runs.evidence(connection, run_id))
        run.tags.update(tags)
        own = evaluate(gate, {"run": run}, position) if gate else None
        evidence = [evaluate(policy.gate, {"run": run}, position, policy.name) for policy in gates]
        return own, GateResult(declared.revision, _reasons(binding), tuple(evidence))

    async def moves(self, declared: policies.State, cases: Sequence[Case]) -> list[GateResult]:
        """Return what policies say of moves, all by what is known of runs at one moment.

        Raises:
            StoreUnavailable: What is known of runs is behind.
        """
        binding = [binding_move(declared, case.names, case.alias) for case in cases]
        gated = [
            number
            for number, case in enumerate(cases)
            if not case.skip and any(policy.gate for policy in binding[number])
        ]
        seen = {number: _variables(cases[number]) for number in gated}
        known, position = await self._known(list(seen.values())) if gated else ({}, 0)

        def judged() -> list[GateResult]:
            return [
                _judged(declared, policies, case, _with_measurements(seen[number], known), position)
                if number in seen
                else _unasked(declared, policies)
                for number, (case, policies) in enumerate(zip(cases, binding, strict=True))
            ]

        # Many gates take their time: the loop has others to serve.
        return await asyncio.to_thread(judged) if len(gated) > 1 else judged()

    async def ask(self, expression: str, cases: Sequence[Mapping[str, v1.GateRun]]) -> list[v1.GateEvidence]:
        """Return what a gate says of each of many cases, by the metrics and parameters that their runs have now.

        Raises:
            StoreUnavailable: What is known of runs is behind.
        """
        known, position = await self._known(cases)

        def answers() -> list[v1.GateEvidence]:
            return [evaluate(expression, _with_measurements(case, known), position) for case in cases]

        return await asyncio.to_thread(answers)

    async def _known(self, cases: Sequence[Mapping[str, v1.GateRun]]) -> tuple[Mapping[str, v1.GateRun], int]:
        wanted = sorted({run.run_id for case in cases for run in case.values() if run.run_id})
        await self._catch_up()
        return await self._runs.query(lambda connection: runs.known_runs(connection, wanted))

    async def _catch_up(self) -> None:
        """Wait for all that was logged up to now: what a run has measured counts, whoever asks, and a schedule too."""
        await self._runs.wait_for(await self._runs.store.head(), MAX_WAIT_SECONDS)


def _reasons(binding: Sequence[v1.Policy]) -> tuple[str, ...]:
    return tuple(policy.name for policy in binding if policy.reason_required)


def _variables(case: Case) -> dict[str, v1.GateRun]:
    current = (case.version, case.state.alias(case.alias).version, case.state.alias(CHAMPION).version)
    return dict(zip(MOVE, (_run(case.state, number) for number in current), strict=True))


def _judged(
    declared: policies.State,
    binding: Sequence[v1.Policy],
    case: Case,
    variables: Mapping[str, v1.GateRun],
    position: int,
) -> GateResult:
    evidence = [evaluate(policy.gate, variables, position, policy.name) for policy in binding if policy.gate]
    current = case.state.alias(case.alias).version, case.state.alias(CHAMPION).version
    candidate = variables[MOVE[0]].version
    return GateResult(declared.revision, _reasons(binding), tuple(evidence), (), candidate, *current)


def _unasked(declared: policies.State, binding: Sequence[v1.Policy]) -> GateResult:
    gates = tuple(policy.gate for policy in binding if policy.gate)
    return GateResult(declared.revision, _reasons(binding), skipped=gates)


def _run(state: State, number: int) -> v1.GateRun:
    """Return a version as a gate sees it, without its run's metrics; version 0 when there is no such version."""
    version = state.versions.get(number)
    return v1.GateRun(run_id=version.run_id, version=number, tags=dict(version.tags)) if version else v1.GateRun()


def _with_measurements(case: Mapping[str, v1.GateRun], known: Mapping[str, v1.GateRun]) -> dict[str, v1.GateRun]:
    """Return a gate's variables with the metrics and the parameters of their runs, as far as those are known."""
    seen: dict[str, v1.GateRun] = {}
    for name, version in case.items():
        measured = known.get(version.run_id, v1.GateRun())
        seen[name] = v1.GateRun(metrics=measured.metrics, params=measured.params)
        seen[name].MergeFrom(version)
    return seen
