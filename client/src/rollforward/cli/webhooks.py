"""The commands about webhooks: endpoints that are told of every change of an alias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter
from rich.console import Group

import rollforward as rf
from rollforward import webhooks
from rollforward.cli.options import DEFAULTS, Limit, Options, Reason, RequestId, examples
from rollforward.cli.output import grid, moment, pairs, print_json, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from rollforward import v1

app: Final = App(
    name="webhooks",
    help="Webhooks: create, list, show, update, delete, rotate, secret, test, resume, replay, deliveries.",
)

Id = Annotated[str, Parameter(name="ID", help="The webhook's id, as `webhooks list` shows it.")]
Url = Annotated[str, Parameter(name="URL", help="Where requests are sent: http or https.")]
ModelPattern = Annotated[
    str, Parameter(name="--model", help="The models it hears of: a name, or a pattern such as 'fraud-*'.")
]
AliasPattern = Annotated[str, Parameter(name="--alias", help="The aliases it hears of: a name, or a pattern.")]
Changes = Annotated[
    tuple[Literal["moved", "removed"], ...],
    Parameter(name="--change", negative="", show_default=False, help="One kind of change only."),
]
Description = Annotated[str, Parameter(help="What it is for.", show_default=False)]


@app.command(
    help_epilogue=examples(
        "webhooks create https://ci.example/hook --alias champion",
        "webhooks create https://ci.example/hook --model 'fraud-*' --from 0",
    )
)
def create(
    url: Url,
    /,
    *,
    model: ModelPattern = "*",
    alias: AliasPattern = "*",
    change: Changes = (),
    from_revision: Annotated[
        int | None, Parameter(name="--from", help="Every change after this revision, 0 for all; default those to come.")
    ] = None,
    description: Description = "",
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Set an endpoint up, and print the secret to verify its requests with."""
    options.connect()
    made = webhooks.create_webhook(
        url,
        model=model,
        alias=alias,
        changes=change,
        description=description,
        from_revision=from_revision,
        reason=reason,
        request_id=request_id,
    )
    options.show(made, lambda: _facts(made.webhook, secret=made.secret))


@app.command(name="list", help_epilogue=examples("webhooks list", "webhooks list -o json"))
def list_webhooks(*, limit: Limit = 100, options: Options = DEFAULTS) -> None:
    """List endpoints, oldest first."""
    options.connect()
    found = webhooks.list_webhooks(limit=limit)
    options.show(found, lambda: _webhooks(found))


@app.command(help_epilogue=examples("webhooks show 5d3c..."))
def show(webhook_id: Id, /, *, options: Options = DEFAULTS) -> None:
    """Show an endpoint: what it hears of, how far it is, and what is wrong with it."""
    options.connect()
    webhook = webhooks.get_webhook(webhook_id)
    options.show(webhook, lambda: _facts(webhook))


@app.command(help_epilogue=examples("webhooks update 5d3c... --url https://ci.example/v2/hook"))
def update(
    webhook_id: Id,
    /,
    *,
    url: Annotated[str | None, Parameter(help="Where requests are sent.")] = None,
    model: Annotated[str | None, Parameter(help="The models it hears of.")] = None,
    alias: Annotated[str | None, Parameter(help="The aliases it hears of.")] = None,
    change: Changes = (),
    description: Annotated[str | None, Parameter(help="What it is for.")] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Change an endpoint's settings; what is not given stays as it is."""
    options.connect()
    webhook = webhooks.update_webhook(
        webhook_id,
        url=url,
        model=model,
        alias=alias,
        changes=change,
        description=description,
        reason=reason,
        request_id=request_id,
    )
    options.show(webhook, lambda: _facts(webhook))


@app.command(help_epilogue=examples("webhooks delete 5d3c... --reason 'moved to a watch'"))
def delete(
    webhook_id: Id, /, *, reason: Reason = "", request_id: RequestId = None, options: Options = DEFAULTS
) -> None:
    """Take an endpoint away, and print what it was."""
    options.connect()
    webhook = webhooks.get_webhook(webhook_id)
    webhooks.delete_webhook(webhook_id, reason=reason, request_id=request_id)
    options.show(webhook, lambda: _facts(webhook))


@app.command(help_epilogue=examples("webhooks rotate 5d3c...", "webhooks rotate 5d3c... --overlap 0 --reason leaked"))
def rotate(
    webhook_id: Id,
    /,
    *,
    overlap: Annotated[
        int | None, Parameter(help="For so many seconds the old secret is signed with too; default 24 hours.")
    ] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Replace an endpoint's secret, and print the new one."""
    options.connect()
    made = webhooks.rotate_webhook_secret(webhook_id, overlap_seconds=overlap, reason=reason, request_id=request_id)
    until = moment(made.previous_valid_until)
    options.show(made, lambda: pairs({"secret": made.secret, "old one until": until}))


@app.command(help_epilogue=examples("webhooks secret 5d3c..."))
def secret(webhook_id: Id, /, *, options: Options = DEFAULTS) -> None:
    """Print an endpoint's secret of now."""
    options.connect()
    found = webhooks.get_webhook_secret(webhook_id)
    if options.json:
        print_json({"secret": found})
    else:
        print(found)


@app.command(name="test", help_epilogue=examples("webhooks test 5d3c..."))
def try_endpoint(webhook_id: Id, /, *, options: Options = DEFAULTS) -> int:
    """Send an endpoint one signed request that means nothing; exit code 1 when it does not take it."""
    options.connect()
    answer = webhooks.try_webhook(webhook_id)
    options.show(answer, lambda: _answer(answer))
    return 0 if answer.delivered else 1


@app.command(help_epilogue=examples("webhooks resume 5d3c...", "webhooks resume 5d3c... --skip 17 --reason 'bad body'"))
def resume(
    webhook_id: Id,
    /,
    *,
    skip: Annotated[int | None, Parameter(help="Send nothing up to this revision any more.")] = None,
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Send on at once: to a parked endpoint, or to one that waits for its next attempt."""
    options.connect()
    webhook = webhooks.resume_webhook(webhook_id, skip_revision=skip, reason=reason, request_id=request_id)
    options.show(webhook, lambda: _facts(webhook))


@app.command(help_epilogue=examples("webhooks replay 5d3c... --from 17"))
def replay(
    webhook_id: Id,
    /,
    *,
    from_revision: Annotated[int, Parameter(name="--from", help="Every change after this revision; 0 for all.")],
    reason: Reason = "",
    request_id: RequestId = None,
    options: Options = DEFAULTS,
) -> None:
    """Send every change after a revision again, in order, each with the id that it had."""
    options.connect()
    webhook = webhooks.replay_webhook(webhook_id, from_revision, reason=reason, request_id=request_id)
    options.show(webhook, lambda: _facts(webhook))


@app.command(help_epilogue=examples("webhooks deliveries 5d3c...", "webhooks deliveries 5d3c... --limit 10 -o json"))
def deliveries(webhook_id: Id, /, *, limit: Limit = 20, options: Options = DEFAULTS) -> None:
    """What an endpoint was told, from the log, and the last requests that were made; newest first."""
    options.connect()
    told = webhooks.webhook_deliveries(webhook_id, limit=limit)
    tried = webhooks.webhook_attempts(webhook_id)[:limit]
    found = rf.v1.ListDeliveriesResponse(deliveries=told, attempts=tried)
    options.show(found, lambda: Group(_deliveries(told), "", _attempts(tried)))


def _webhooks(found: Sequence[v1.Webhook]) -> RenderableType:
    rows = [
        (one.webhook_id, _state(one), str(one.cursor), one.settings.model, one.settings.alias, one.settings.url)
        for one in found
    ]
    return grid(("ID", "STATE", "CURSOR>", "MODEL", "ALIAS", "URL"), rows)


def _facts(one: v1.Webhook, secret: str = "") -> RenderableType:
    settings, trouble = one.settings, one.trouble
    kinds = [word(rf.v1.WebhookChangeKind.Name(kind), "WEBHOOK_CHANGE_KIND_") for kind in settings.changes]
    facts = {"id": one.webhook_id, "url": settings.url, "state": _state(one), "cursor": str(one.cursor)}
    facts |= {"model": settings.model, "alias": settings.alias, "changes": ", ".join(kinds)}
    facts |= {"description": settings.description, "created": moment(one.created_at), "by": one.actor, "secret": secret}
    if one.HasField("trouble"):
        facts |= {"not taken": f"change {trouble.position}: {trouble.detail} (attempt {trouble.attempts})"}
        facts |= {"since": moment(trouble.since)}
        facts |= {"next attempt": moment(trouble.next_attempt_at) if trouble.HasField("next_attempt_at") else ""}
    return pairs(facts)


def _state(one: v1.Webhook) -> str:
    return word(rf.v1.WebhookState.Name(one.state), "WEBHOOK_STATE_")


def _answer(answer: v1.TestWebhookResponse) -> RenderableType:
    return pairs(
        {"taken": "yes" if answer.delivered else "no", "status": str(answer.status_code or ""), "why": answer.detail}
        | {"seconds": f"{answer.seconds:.3f}"}
    )


def _deliveries(told: Sequence[v1.WebhookDelivery]) -> RenderableType:
    rows = [
        (moment(one.time), one.WhichOneof("step") or "", *_step(one), one.actor, one.reason or one.parked.detail)
        for one in told
    ]
    return grid(("WHEN", "WHAT", "UP TO>", "CHANGES>", "ATTEMPTS>", "STATUS>", "WHO", "WHY"), rows)


def _step(one: v1.WebhookDelivery) -> tuple[str, str, str, str]:
    match one.WhichOneof("step"):
        case "delivered":
            told = one.delivered
            return str(told.position), str(told.deliveries), str(told.attempts), str(told.status_code)
        case "parked":
            return str(one.parked.position), "", str(one.parked.attempts), str(one.parked.status_code or "")
        case "resumed":
            return str(one.resumed.to_revision), "", "", ""
        case _:
            return str(one.replayed.to_revision), "", "", ""


def _attempts(tried: Sequence[v1.WebhookAttempt]) -> RenderableType:
    rows = [
        (
            moment(one.time),
            str(one.position),
            str(one.number),
            str(one.status_code or ""),
            f"{one.seconds:.3f}",
            one.detail,
        )
        for one in tried
    ]
    return grid(("SENT", "CHANGE>", "ATTEMPT>", "STATUS>", "SECONDS>", "WHY"), rows)
