"""The `policies` and `gates` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

import rollforward as rf
from rollforward.cli.options import (
    DEFAULTS,
    AliasPattern,
    Limit,
    ModelName,
    ModelPattern,
    Options,
    Reason,
    RequestId,
    Since,
    examples,
    flag,
    read_version,
)
from rollforward.cli.output.failures import UsageError
from rollforward.cli.output.tables import grid, moment, version_of
from rollforward.cli.registry.evidence import inputs, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

policies: Final = App(name="policies", help="Protect aliases and registrations.")
gates: Final = App(name="gates", help="Evaluate a gate on versions or on past moves.")

PolicyName = Annotated[str, Parameter(name="NAME", help="The policy's name.")]
Gate = Annotated[str, Parameter(metavar="EXPRESSION", help="A CEL expression that must be true.", show_default=False)]
RecentDays = Annotated[
    int | None,
    Parameter(
        metavar="DAYS",
        validator=Number(gte=1),
        help="Skip the gate for a rollback to a version that the alias pointed to within DAYS; default 30.",
    ),
]
Expression = Annotated[str, Parameter(name="EXPRESSION", help="The CEL expression.")]


@policies.command(
    name="set",
    help_epilogue=examples(
        "policies set better --alias champion --gate 'candidate.metrics.f1 >= champion.metrics.f1 + 0.01'",
        "policies set accurate --model 'fraud-*' --gate 'run.metrics.accuracy > 0.95'",
    ),
)
def set_policy(
    name: PolicyName,
    /,
    *,
    model: ModelPattern = "*",
    alias: Annotated[
        AliasPattern,
        Parameter(
            help="Apply it to moves of these aliases, a name or a pattern; default to registrations.",
            show_default=False,
        ),
    ] = "",
    reason_required: Annotated[bool, flag("Reject commands without a reason.")] = False,
    gate: Gate = "",
    recent_days: RecentDays = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Create or replace a policy for registrations of versions, or for moves of aliases.

    The variables of a gate are `run` for a registration, and `candidate`, `current` and `champion` for a move.
    """
    options.connect()
    rf.set_policy(
        name,
        models=model,
        aliases=alias,
        reason_required=reason_required,
        gate=gate,
        recent_days=recent_days or 0,
        reason=reason,
        request_id=request_id,
    )
    _show(name, options)


@policies.command(
    help_epilogue=examples("policies protect champion", "policies protect prod --alias 'prod-*' --model 'fraud-*'")
)
def protect(
    name: PolicyName,
    /,
    *,
    model: ModelPattern = "*",
    alias: Annotated[
        AliasPattern,
        Parameter(help="A name or a pattern; default the policy's name.", show_default=False),
    ] = "",
    gate: Gate = "",
    recent_days: RecentDays = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Protect aliases: require a reason for moves, and a passing gate if one is given."""
    set_policy(
        name,
        model=model,
        alias=alias or name,
        reason_required=True,
        gate=gate,
        recent_days=recent_days,
        reason=reason,
        request_id=request_id,
        options=options,
    )


@policies.command(name="list", help_epilogue=examples("policies list", "policies list -o json"))
def list_policies(*, options: Options = DEFAULTS) -> None:
    """List all policies, by name."""
    options.connect()
    listed = rf.list_policies()
    options.show(listed, lambda: _policies(listed))


@policies.command(help_epilogue=examples("policies remove better --reason 'checked by hand'"))
def remove(
    name: PolicyName, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Remove a policy, and list the remaining ones."""
    options.connect()
    rf.remove_policy(name, reason=reason, request_id=request_id)
    remaining = rf.list_policies()
    options.show(remaining, lambda: _policies(remaining))


@gates.command(
    name="test",
    help_epilogue=examples(
        "gates test 'run.metrics.accuracy > 0.95' fraud-detector",
        "gates test 'candidate.metrics.f1 >= current.metrics.f1' fraud-detector v2 v3 --alias champion",
    ),
)
def try_gate(
    expression: Expression,
    model: ModelName,
    /,
    *versions: Annotated[str, Parameter(name="VERSION", help="3 or v3, one or more; default all.")],
    alias: Annotated[
        str,
        Parameter(
            metavar="ALIAS",
            help="Evaluate it as a gate for moves of this alias; default for registrations.",
            show_default=False,
        ),
    ] = "",
    options: Options = DEFAULTS,
) -> None:
    """Evaluate a gate on existing versions, without writing anything."""
    try:
        numbers = [read_version(version) for version in versions]
    except ValueError as error:
        raise UsageError(str(error)) from error
    options.connect()
    evidence = rf.try_gate(expression, model, numbers, alias=alias)
    options.show(evidence, lambda: _evidence(evidence))


@gates.command(
    help_epilogue=examples(
        "gates replay 'candidate.metrics.f1 >= current.metrics.f1' --alias champion --since 2026-11-01"
    )
)
def replay(
    expression: Expression,
    /,
    *,
    model: ModelPattern = "*",
    alias: AliasPattern = "*",
    since: Since = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """Evaluate a gate on past moves, oldest first, with the current metrics of the runs."""
    options.connect()
    moves = rf.replay_gate(expression, models=model, aliases=alias, since=since, limit=limit)
    options.show(moves, lambda: _replayed(moves))


def _show(name: str, options: Options) -> None:
    (policy,) = (listed for listed in rf.list_policies() if listed.name == name)
    options.show(policy, lambda: _policies([policy]))


def _policies(listed: Sequence[v1.Policy]) -> RenderableType:
    rows = [
        (
            policy.name,
            policy.models,
            f"moves of {policy.aliases}" if policy.aliases else "registration",
            "required" if policy.reason_required else "-",
            f"{policy.recent_days or 30} days" if policy.gate and policy.aliases else "-",
            policy.gate,
        )
        for policy in listed
    ]
    return grid(("POLICY", "MODELS~", "BINDS~", "REASON", "RECENT", "GATE"), rows, empty="no policies")


def _evidence(evidence: Sequence[v1.GateEvidence]) -> RenderableType:
    rows = [(version_of(result.run.version), verdict(result), inputs(result)) for result in evidence]
    return grid(("VERSION", "RESULT", "VALUES"), rows, empty="no versions match")


def _replayed(moves: Sequence[v1.ReplayedMove]) -> RenderableType:
    rows = [
        (
            str(move.revision),
            moment(move.time),
            f"{move.model}@{move.alias}",
            version_of(move.from_version),
            version_of(move.to_version),
            move.actor,
            verdict(move.evidence),
            inputs(move.evidence),
        )
        for move in moves
    ]
    headers = ("REVISION>", "TIME", "ALIAS", "FROM", "TO", "ACTOR", "RESULT~", "VALUES")
    return grid(headers, rows, empty="no moves match")
