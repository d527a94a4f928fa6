"""Deployments: aliases that pods follow, and what the pods serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollforward import v1
from rollforward._transport.default import default_client_function
from rollforward._transport.resource import Resource

if TYPE_CHECKING:
    import builtins


class Deployments(Resource):
    """Aliases that pods follow, and what the pods serve."""

    def list(self, model: str = "", *, include_stopped: bool = False) -> builtins.list[v1.Deployment]:
        """List the aliases that pods follow, of one model or all, each with its assignment and what each pod serves.

        Raises:
            Unavailable: No result within the timeout.
        """
        request = v1.ListDeploymentsRequest(model=model, include_stopped=include_stopped)
        merged: list[v1.Deployment] = []
        while not merged or request.page_token:
            page = self._connection.call(self._connection.serving.ListDeployments, request)
            for deployment in page.deployments:
                if merged and merged[-1].desired.target == deployment.desired.target:
                    merged[-1].pods.extend(deployment.pods)
                else:
                    merged.append(deployment)
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        return merged


deployments = default_client_function("deployments", Deployments, Deployments.list)
