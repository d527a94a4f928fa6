"""Cases like those of `registry_cases`, for the commands of tracking, serving and webhooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.message import Message

from rollforward import v1
from services.series.columns import Points, pack
from tests.integration.registry.registry_cases import Case, Prepared, lose_artifact
from tests.integration.two_writers import Writers
from tests.integration.up import SECONDS, Client, new_id

Make = Callable[[str, Client], Message]


def _nothing() -> None:
    """Do nothing: the command cannot be repeated anyway."""


# Experiments, runs and logged models.


def _experiment_stays(writers: Writers) -> Prepared:
    return v1.CreateExperimentRequest(name=new_id()), _nothing


def _on_experiment(make: Make, *, deleted: bool = False) -> Any:
    """Return a scenario of a command on an experiment, which is deleted after it."""

    def experiment(writers: Writers) -> Prepared:
        experiment_id = writers.one.new_experiment()
        delete = v1.DeleteExperimentRequest(experiment_id=experiment_id)
        if deleted:
            writers.one.tracking.DeleteExperiment(delete, timeout=SECONDS)
            return make(experiment_id, writers.one), _nothing
        return make(experiment_id, writers.one), lambda: writers.other.tracking.DeleteExperiment(
            delete, timeout=SECONDS
        )

    return experiment


def _on_run(make: Make, *, deleted: bool = False) -> Any:
    """Return a scenario of a command on a run, which is deleted after it."""

    def run(writers: Writers) -> Prepared:
        run_id = writers.one.new_run()
        delete = v1.DeleteRunRequest(run_id=run_id)
        if deleted:
            writers.one.tracking.DeleteRun(delete, timeout=SECONDS)
            return make(run_id, writers.one), _nothing
        return make(run_id, writers.one), lambda: writers.other.tracking.DeleteRun(delete, timeout=SECONDS)

    return run


def _resumed_run_is_deleted(writers: Writers) -> Prepared:
    run_id = writers.one.new_run()
    finish = v1.FinishRunRequest(run_id=run_id, status=v1.RUN_STATUS_FINISHED)
    writers.one.tracking.FinishRun(finish, timeout=SECONDS)
    delete = v1.DeleteRunRequest(run_id=run_id)
    return v1.ResumeRunRequest(run_id=run_id), lambda: writers.other.tracking.DeleteRun(delete, timeout=SECONDS)


def _run_of_deleted_experiment(writers: Writers) -> Prepared:
    experiment_id, run_id = writers.one.new_experiment(), new_id()
    delete = v1.DeleteExperimentRequest(experiment_id=experiment_id)

    def act() -> None:
        writers.other.tracking.DeleteExperiment(delete, timeout=SECONDS)

    return v1.StartRunRequest(run_id=run_id, experiment_id=experiment_id), act


def _artifact_is_lost(writers: Writers) -> Prepared:
    run_id, digest = writers.one.new_run(), writers.one.upload(new_id().encode())
    request = v1.LogArtifactRequest(run_id=run_id, path="model", digest=digest)
    return request, lambda: lose_artifact(writers, digest)


def _points(run_id: str, _: Client) -> Message:
    at = np.array([1])
    return v1.LogBatchRequest(run_id=run_id, series=[pack("loss", Points(at, at, np.array([0.5])))])


def _lineage(run_id: str, _: Client) -> Message:
    return v1.LogLineageRequest(run_id=run_id, inputs=[v1.DatasetInput(dataset=v1.Dataset(name="d", digest="1"))])


def _logged_model(client: Client) -> str:
    model_id = f"m-{new_id()}"
    request = v1.CreateLoggedModelRequest(model_id=model_id, experiment_id=client.new_experiment(), name="m")
    client.logged_models.CreateLoggedModel(request, timeout=SECONDS)
    return model_id


def _new_logged_model_stays(writers: Writers) -> Prepared:
    request = v1.CreateLoggedModelRequest(
        model_id=f"m-{new_id()}", experiment_id=writers.one.new_experiment(), name="m"
    )
    return request, _nothing


def _on_logged_model(make: Make, *, deleted: bool = False) -> Any:
    """Return a scenario of a command on a logged model, which is deleted after it."""

    def model(writers: Writers) -> Prepared:
        model_id = _logged_model(writers.one)
        delete = v1.DeleteLoggedModelRequest(model_id=model_id)
        if deleted:
            writers.one.logged_models.DeleteLoggedModel(delete, timeout=SECONDS)
            return make(model_id, writers.one), _nothing
        return make(model_id, writers.one), lambda: writers.other.logged_models.DeleteLoggedModel(
            delete, timeout=SECONDS
        )

    return model


def _files_are_lost(writers: Writers) -> Prepared:
    model_id, digest = _logged_model(writers.one), writers.one.upload(new_id().encode())
    request = v1.LogLoggedModelArtifactRequest(model_id=model_id, digest=digest)
    return request, lambda: lose_artifact(writers, digest)


TRACKING = [
    Case("tracking", "CreateExperiment", _experiment_stays, repeated_refusal="EXPERIMENT_EXISTS"),
    Case("tracking", "DeleteExperiment", _on_experiment(lambda e, _: v1.DeleteExperimentRequest(experiment_id=e))),
    Case(
        "tracking",
        "RestoreExperiment",
        _on_experiment(lambda e, _: v1.RestoreExperimentRequest(experiment_id=e), deleted=True),
    ),
    Case(
        "tracking",
        "RenameExperiment",
        _on_experiment(lambda e, _: v1.RenameExperimentRequest(experiment_id=e, new_name=new_id())),
        repeated_refusal="EXPERIMENT_DELETED",
    ),
    Case(
        "tracking",
        "ChangeExperimentTags",
        _on_experiment(lambda e, _: v1.ChangeExperimentTagsRequest(experiment_id=e, set={"a": "b"})),
        repeated_refusal="EXPERIMENT_DELETED",
    ),
    Case("tracking", "StartRun", _run_of_deleted_experiment, repeated_refusal="RUN_EXISTS"),
    Case("tracking", "ResumeRun", _resumed_run_is_deleted, repeated_refusal="RUN_DELETED"),
    Case("tracking", "DeleteRun", _on_run(lambda r, _: v1.DeleteRunRequest(run_id=r))),
    Case("tracking", "RestoreRun", _on_run(lambda r, _: v1.RestoreRunRequest(run_id=r), deleted=True)),
    # A deleted run may end, and accepts late points.
    Case("tracking", "FinishRun", _on_run(lambda r, _: v1.FinishRunRequest(run_id=r, status=v1.RUN_STATUS_FINISHED))),
    Case("tracking", "LogBatch", _on_run(_points), repeated_refusal=None),
    Case("tracking", "LogArtifact", _artifact_is_lost, repeated_refusal="ARTIFACT_NOT_FOUND"),
    *(
        Case("tracking", method, _on_run(make), repeated_refusal="RUN_DELETED")
        for method, make in (
            ("LogBatch", lambda r, _: v1.LogBatchRequest(run_id=r, params={"a": "b"})),
            ("LogLineage", _lineage),
            ("LogArtifact", lambda r, client: v1.LogArtifactRequest(run_id=r, path="m", digest=client.upload())),
            ("RenameRun", lambda r, _: v1.RenameRunRequest(run_id=r, new_name="n")),
            ("DescribeRun", lambda r, _: v1.DescribeRunRequest(run_id=r, description="d")),
        )
    ),
    Case("logged_models", "CreateLoggedModel", _new_logged_model_stays, repeated_refusal="LOGGED_MODEL_EXISTS"),
    Case("logged_models", "DeleteLoggedModel", _on_logged_model(lambda m, _: v1.DeleteLoggedModelRequest(model_id=m))),
    Case(
        "logged_models",
        "RestoreLoggedModel",
        _on_logged_model(lambda m, _: v1.RestoreLoggedModelRequest(model_id=m), deleted=True),
    ),
    Case("logged_models", "LogLoggedModelArtifact", _files_are_lost, repeated_refusal="ARTIFACT_NOT_FOUND"),
    *(
        Case("logged_models", method, _on_logged_model(make), repeated_refusal="LOGGED_MODEL_DELETED")
        for method, make in (
            ("LogLoggedModel", lambda m, _: v1.LogLoggedModelRequest(model_id=m, params={"a": "b"})),
            (
                "FinalizeLoggedModel",
                lambda m, _: v1.FinalizeLoggedModelRequest(model_id=m, status=v1.LOGGED_MODEL_STATUS_READY),
            ),
        )
    ),
]

# Pods.


def _target() -> v1.Target:
    return v1.Target(model="m", alias="champion")


def _new_pod_stops(writers: Writers) -> Prepared:
    pod_id = new_id()
    stop = v1.StopPodRequest(pod_id=pod_id)
    request = v1.StartPodRequest(pod_id=pod_id, host="h", endpoint="h:1", targets=[_target()])
    return request, lambda: writers.other.serving.StopPod(stop, timeout=SECONDS)


def _pod(writers: Writers) -> str:
    pod_id = new_id()
    request = v1.StartPodRequest(pod_id=pod_id, host="h", endpoint="h:1", targets=[_target()])
    writers.one.serving.StartPod(request, timeout=SECONDS)
    return pod_id


def _pod_that_applied_stops(writers: Writers) -> Prepared:
    pod_id = _pod(writers)
    assignment = v1.Assignment(target=_target(), version=1, digest=f"sha256:{new_id() * 2}", revision=1)
    stop = v1.StopPodRequest(pod_id=pod_id)
    request = v1.AcknowledgeAssignmentRequest(pod_id=pod_id, assignment=assignment)
    return request, lambda: writers.other.serving.StopPod(stop, timeout=SECONDS)


def _pod_stays_stopped(writers: Writers) -> Prepared:
    return v1.StopPodRequest(pod_id=_pod(writers)), _nothing


SERVING = [
    Case("serving", "StartPod", _new_pod_stops, repeated_refusal="POD_EXISTS"),
    Case("serving", "AcknowledgeAssignment", _pod_that_applied_stops, repeated_refusal="POD_STOPPED"),
    Case("serving", "StopPod", _pod_stays_stopped),
]

# Webhooks. Their model's aliases never move, so nothing is sent.


def _create_webhook() -> v1.CreateWebhookRequest:
    return v1.CreateWebhookRequest(url="http://127.0.0.1:9/", model=new_id())


def _new_webhook_is_deleted(writers: Writers) -> Prepared:
    return _create_webhook(), lambda: _delete_webhook_of(writers)


def _delete_webhook_of(writers: Writers) -> object:
    position = writers.one.heads()["webhooks"]
    headers = (("rollforward-min-position", f"webhooks={position}"),)
    request = v1.ListWebhooksRequest(page_size=1000)
    newest = writers.one.webhooks.ListWebhooks(request, metadata=headers, timeout=SECONDS).webhooks[-1]
    delete = v1.DeleteWebhookRequest(webhook_id=newest.webhook_id)
    return writers.other.webhooks.DeleteWebhook(delete, timeout=SECONDS)


def _on_webhook(make: Callable[[str], Message], *, stays: bool = False) -> Any:
    """Return a scenario of a command on a webhook, which is deleted after it."""

    def webhook(writers: Writers) -> Prepared:
        made = writers.one.webhooks.CreateWebhook(_create_webhook(), timeout=SECONDS)
        webhook_id = made.webhook.webhook_id
        delete = v1.DeleteWebhookRequest(webhook_id=webhook_id)
        act = _nothing if stays else lambda: writers.other.webhooks.DeleteWebhook(delete, timeout=SECONDS)
        return make(webhook_id), act

    return webhook


def _skipping_webhook_is_deleted(writers: Writers) -> Prepared:
    writers.one.new_model()
    made = writers.one.webhooks.CreateWebhook(
        v1.CreateWebhookRequest(url="http://127.0.0.1:9/", model=new_id(), from_revision=0), timeout=SECONDS
    )
    webhook_id = made.webhook.webhook_id
    delete = v1.DeleteWebhookRequest(webhook_id=webhook_id)
    request = v1.ResumeWebhookRequest(webhook_id=webhook_id, skip_revision=writers.one.heads()["registry"])
    return request, lambda: writers.other.webhooks.DeleteWebhook(delete, timeout=SECONDS)


WEBHOOKS = [
    Case("webhooks", "CreateWebhook", _new_webhook_is_deleted, repeated_refusal=None),
    Case(
        "webhooks",
        "DeleteWebhook",
        _on_webhook(lambda w: v1.DeleteWebhookRequest(webhook_id=w), stays=True),
        repeated_refusal="WEBHOOK_NOT_FOUND",
    ),
    Case("webhooks", "ResumeWebhook", _skipping_webhook_is_deleted, repeated_refusal="WEBHOOK_NOT_FOUND"),
    *(
        Case("webhooks", method, _on_webhook(make), repeated_refusal="WEBHOOK_NOT_FOUND")
        for method, make in (
            ("UpdateWebhook", lambda w: v1.UpdateWebhookRequest(webhook_id=w, description="d")),
            ("RotateWebhookSecret", lambda w: v1.RotateWebhookSecretRequest(webhook_id=w)),
            ("ReplayWebhook", lambda w: v1.ReplayWebhookRequest(webhook_id=w)),
        )
    ),
]
