"""The `webhooks` commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from rollforward.cli.identifiers import webhook_id
from rollforward.cli.operations.webhook_tables import (
    attempts_table,
    deliveries_table,
    plain_delivery,
    plain_webhook,
    test_result_table,
    webhook_details,
    webhooks_table,
)
from rollforward.cli.options import (
    DEFAULTS,
    AliasPattern,
    Description,
    Limit,
    ModelPattern,
    Options,
    Reason,
    RequestId,
    examples,
)
from rollforward.cli.output.tables import moment, pairs
from rollforward.operations import webhooks

if TYPE_CHECKING:
    pass

app: Final = App(
    name="webhooks",
    help="Send every change of an alias to an HTTP endpoint.",
)

Id = Annotated[str, Parameter(name="ID", help="The webhook's id, or a unique prefix of it.")]
Url = Annotated[str, Parameter(name="URL", help="The URL to send requests to: http or https.")]
Changes = Annotated[
    tuple[Literal["moved", "removed"], ...],
    Parameter(
        name="--change",
        metavar="KIND",
        negative="",
        show_default=False,
        help="Only this kind of change; may be repeated.",
    ),
]


@app.command(
    help_epilogue=examples(
        "webhooks create https://ci.example/hook --alias champion",
        "webhooks create https://ci.example/hook --model 'fraud-*' --after 0",
    )
)
def create(
    url: Url,
    /,
    *,
    model: ModelPattern = "*",
    alias: AliasPattern = "*",
    change: Changes = (),
    after: Annotated[
        int | None,
        Parameter(
            metavar="REVISION",
            validator=Number(gte=0),
            help="Send every change after this revision, 0 for all; default only new ones.",
        ),
    ] = None,
    description: Description = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Create a webhook, and print its secret, which is never shown again."""
    options.connect()
    response = webhooks.create_webhook(
        url,
        model=model,
        alias=alias,
        changes=change,
        description=description,
        from_revision=after,
        reason=reason,
        request_id=request_id,
    )
    options.show(
        {**plain_webhook(response.webhook), "secret": response.secret},
        lambda: webhook_details(response.webhook, secret=response.secret),
    )


@app.command(name="list", help_epilogue=examples("webhooks list", "webhooks list -o json"))
def list_webhooks(*, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """List webhooks, oldest first."""
    options.connect()
    listed = webhooks.list_webhooks(limit=limit)
    options.show([plain_webhook(webhook) for webhook in listed], lambda: webhooks_table(listed, wide=options.wide))


@app.command(help_epilogue=examples("webhooks show 5d3c0a1b"))
def show(webhook: Id, /, *, options: Options = DEFAULTS) -> None:
    """Show a webhook: its filter, its cursor, and its last error."""
    options.connect()
    shown = webhooks.get_webhook(webhook_id(webhook))
    options.show(plain_webhook(shown), lambda: webhook_details(shown))


@app.command(help_epilogue=examples("webhooks update 5d3c0a1b --url https://ci.example/v2/hook"))
def update(
    webhook: Id,
    /,
    *,
    url: Annotated[str | None, Parameter(metavar="URL", help="The URL to send requests to.")] = None,
    model: Annotated[str | None, Parameter(metavar="PATTERN", help="Models: a name or a pattern.")] = None,
    alias: Annotated[str | None, Parameter(metavar="PATTERN", help="Aliases: a name or a pattern.")] = None,
    change: Changes = (),
    description: Annotated[str | None, Parameter(metavar="TEXT", help="The description.")] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change settings of a webhook; those not given stay."""
    options.connect()
    changed = webhooks.update_webhook(
        webhook_id(webhook),
        url=url,
        model=model,
        alias=alias,
        changes=change,
        description=description,
        reason=reason,
        request_id=request_id,
    )
    options.show(plain_webhook(changed), lambda: webhook_details(changed))


@app.command(help_epilogue=examples("webhooks delete 5d3c0a1b --reason 'moved to a watch'"))
def delete(webhook: Id, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS) -> None:
    """Delete a webhook, and print its last state."""
    options.connect()
    deleted = webhooks.get_webhook(webhook_id(webhook))
    webhooks.delete_webhook(deleted.webhook_id, reason=reason, request_id=request_id)
    options.show(plain_webhook(deleted), lambda: webhook_details(deleted))


@app.command(help_epilogue=examples("webhooks rotate 5d3c0a1b", "webhooks rotate 5d3c0a1b --overlap 0 --reason leaked"))
def rotate(
    webhook: Id,
    /,
    *,
    overlap: Annotated[
        int | None,
        Parameter(metavar="SECONDS", help="How long requests are also signed with the old secret; default 24 hours."),
    ] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Replace a webhook's secret, and print the new one, which is never shown again."""
    options.connect()
    response = webhooks.rotate_webhook_secret(
        webhook_id(webhook), overlap_seconds=overlap, reason=reason, request_id=request_id
    )
    until = moment(response.previous_valid_until)
    options.show(response, lambda: pairs({"secret": response.secret, "old secret until": until}))


@app.command(name="test", help_epilogue=examples("webhooks test 5d3c0a1b"))
def try_endpoint(webhook: Id, /, *, options: Options = DEFAULTS) -> int:
    """Send one signed test request; exit with 1 if the endpoint does not accept it."""
    options.connect()
    result = webhooks.try_webhook(webhook_id(webhook))
    options.show(result, lambda: test_result_table(result))
    return 0 if result.delivered else 1


@app.command(
    help_epilogue=examples("webhooks resume 5d3c0a1b", "webhooks resume 5d3c0a1b --skip 17 --reason 'bad body'")
)
def resume(
    webhook: Id,
    /,
    *,
    skip: Annotated[int | None, Parameter(metavar="REVISION", help="Skip the changes up to this revision.")] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Retry at once: resume a disabled webhook, or one that waits for its next attempt."""
    options.connect()
    resumed = webhooks.resume_webhook(webhook_id(webhook), skip_revision=skip, reason=reason, request_id=request_id)
    options.show(plain_webhook(resumed), lambda: webhook_details(resumed))


@app.command(help_epilogue=examples("webhooks replay 5d3c0a1b --after 17"))
def replay(
    webhook: Id,
    /,
    *,
    after: Annotated[
        int,
        Parameter(
            metavar="REVISION", validator=Number(gte=0), help="Send every change after this revision; 0 for all."
        ),
    ],
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Send every change after a revision again, in order and with the same ids."""
    options.connect()
    replayed = webhooks.replay_webhook(webhook_id(webhook), after, reason=reason, request_id=request_id)
    options.show(plain_webhook(replayed), lambda: webhook_details(replayed))


@app.command(help_epilogue=examples("webhooks deliveries 5d3c0a1b", "webhooks deliveries 5d3c0a1b --limit 10 -o json"))
def deliveries(webhook: Id, /, *, limit: Limit = 20, options: Options = DEFAULTS) -> None:
    """List a webhook's deliveries, failures, resumptions and replays, newest first."""
    options.connect()
    steps = webhooks.webhook_deliveries(webhook_id(webhook), limit=limit)
    options.show([plain_delivery(step) for step in steps], lambda: deliveries_table(steps))


@app.command(help_epilogue=examples("webhooks attempts 5d3c0a1b", "webhooks attempts 5d3c0a1b --limit 5 -o json"))
def attempts(webhook: Id, /, *, limit: Limit = 20, options: Options = DEFAULTS) -> None:
    """List the last requests to a webhook, with their results, newest first."""
    options.connect()
    requests = webhooks.webhook_attempts(webhook_id(webhook))[:limit]
    options.show(requests, lambda: attempts_table(requests))
