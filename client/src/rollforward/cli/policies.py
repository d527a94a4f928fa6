"""The commands about policies, and about what gates would say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

import rollforward as rf
from rollforward.cli.evidence import inputs, verdict
from rollforward.cli.failures import UsageError
from rollforward.cli.options import (
    DEFAULTS,
    Limit,
    ModelName,
    Options,
    Reason,
    RequestId,
    Since,
    examples,
    read_version,
)
from rollforward.cli.output import grid, moment, version_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

policy: Final = App(name="policy", help="Policies: set, protect, list, remove.")
gate: Final = App(name="gate", help="Gates: test one on versions, replay one over past moves.")

PolicyName = Annotated[str, Parameter(name="NAME", help="The policy's name.")]
Models = Annotated[str, Parameter(help="The models: a pattern with *, ? and [...].")]
Gate = Annotated[str, Parameter(help="A CEL expression that must be true.", show_default=False)]
RecentDays = Annotated[
    int, Parameter(help="A rollback to a version that held the alias within so many days skips the gate; 0 means 30.")
]
Expression = Annotated[str, Parameter(name="EXPRESSION", help="The CEL expression.")]


@policy.command(
    name="set",
    help_epilogue=examples(
        "policy set better --aliases champion --gate 'candidate.metrics.f1 >= champion.metrics.f1 + 0.01'",
        "policy set accurate --models 'fraud-*' --gate 'run.metrics.accuracy > 0.95'",
    ),
)
def set_policy(
    name: PolicyName,
    /,
    *,
    models: Models = "*",
    aliases: Annotated[
        str, Parameter(help="The aliases whose moves it binds, a pattern too; none: it binds registration.")
    ] = "",
    reason_required: Annotated[bool, Parameter(negative="", help="What it binds must come with a reason.")] = False,
    gate: Gate = "",
    recent_days: RecentDays = 0,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Declare a policy, or change the one of that name: what must hold before versions are registered or aliases moved.

    A gate speaks of `run` at a registration, and of `candidate`, `current` and `champion` at a move.
    """
    options.connect()
    rf.set_policy(
        name,
        models=models,
        aliases=aliases,
        reason_required=reason_required,
        gate=gate,
        recent_days=recent_days,
        reason=reason,
        request_id=request_id,
    )
    _show(name, options)


@policy.command(
    help_epilogue=examples("policy protect champion", "policy protect prod --aliases 'prod-*' --models 'fraud-*'")
)
def protect(
    name: PolicyName,
    /,
    *,
    models: Models = "*",
    aliases: Annotated[
        str, Parameter(help="The aliases: a pattern; default the alias of the policy's name.", show_default=False)
    ] = "",
    gate: Gate = "",
    recent_days: RecentDays = 0,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Protect aliases: they move only with a reason, and through the gate if one is given."""
    set_policy(
        name,
        models=models,
        aliases=aliases or name,
        reason_required=True,
        gate=gate,
        recent_days=recent_days,
        reason=reason,
        request_id=request_id,
        options=options,
    )


@policy.command(name="list", help_epilogue=examples("policy list", "policy list -o json"))
def list_policies(*, options: Options = DEFAULTS) -> None:
    """All policies, by name."""
    options.connect()
    found = rf.list_policies()
    options.show(found, lambda: _policies(found))


@policy.command(help_epilogue=examples("policy remove better --reason 'judged by hand from now on'"))
def remove(
    name: PolicyName, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Remove a policy, and show those that are left."""
    options.connect()
    rf.remove_policy(name, reason=reason, request_id=request_id)
    left = rf.list_policies()
    options.show(left, lambda: _policies(left))


@gate.command(
    name="test",
    help_epilogue=examples(
        "gate test 'run.metrics.accuracy > 0.95' fraud-detector",
        "gate test 'candidate.metrics.f1 >= current.metrics.f1' fraud-detector v2 v3 --alias champion",
    ),
)
def try_gate(
    expression: Expression,
    model: ModelName,
    /,
    *versions: Annotated[str, Parameter(name="VERSION", help="3 or v3, one or more; default all.")],
    alias: Annotated[
        str, Parameter(help="The alias they would be moved to; none: a gate of registration.", show_default=False)
    ] = "",
    options: Options = DEFAULTS,
) -> None:
    """What a gate says of versions that exist; nothing is written."""
    try:
        numbers = [read_version(version) for version in versions]
    except ValueError as error:
        raise UsageError(str(error)) from error
    options.connect()
    found = rf.try_gate(expression, model, numbers, alias=alias)
    options.show(found, lambda: _evidence(found))


@gate.command(
    help_epilogue=examples(
        "gate replay 'candidate.metrics.f1 >= current.metrics.f1' --aliases champion --since 2026-11-01T00:00Z"
    )
)
def replay(
    expression: Expression,
    /,
    *,
    models: Annotated[str, Parameter(help="The models: a pattern; default all.", show_default=False)] = "",
    aliases: Annotated[str, Parameter(help="The aliases: a pattern; default all.", show_default=False)] = "",
    since: Since = None,
    limit: Limit = 100,
    options: Options = DEFAULTS,
) -> None:
    """Which past moves a gate would have refused, oldest first, by the metrics that the runs have now."""
    options.connect()
    found = rf.replay_gate(expression, models=models, aliases=aliases, since=since, limit=limit)
    options.show(found, lambda: _replayed(found))


def _show(name: str, options: Options) -> None:
    (found,) = (one for one in rf.list_policies() if one.name == name)
    options.show(found, lambda: _policies([found]))


def _policies(found: Sequence[v1.Policy]) -> RenderableType:
    rows = [
        (
            one.name,
            one.models,
            f"moves of {one.aliases}" if one.aliases else "registration",
            "required" if one.reason_required else "-",
            f"{one.recent_days or 30} days" if one.gate and one.aliases else "-",
            one.gate,
        )
        for one in found
    ]
    return grid(("POLICY", "MODELS", "BINDS", "REASON", "RECENT", "GATE"), rows)


def _evidence(found: Sequence[v1.GateEvidence]) -> RenderableType:
    rows = [(version_of(one.run.version), verdict(one), inputs(one)) for one in found]
    return grid(("VERSION", "ANSWER", "OVER"), rows)


def _replayed(found: Sequence[v1.ReplayedMove]) -> RenderableType:
    rows = [
        (
            str(one.revision),
            moment(one.time),
            f"{one.model}@{one.alias}",
            version_of(one.from_version),
            version_of(one.to_version),
            one.actor,
            verdict(one.evidence),
            inputs(one.evidence),
        )
        for one in found
    ]
    return grid(("REVISION>", "WHEN", "ALIAS", "FROM", "TO", "WHO", "ANSWER", "OVER"), rows)
