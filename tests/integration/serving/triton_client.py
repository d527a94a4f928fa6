"""Send a request to a pod with NVIDIA's client, in its own process: its stubs and ours cannot be imported together.

Usage: triton_client.py HOST:PORT MODEL [VERSION]. It reads rows as JSON from standard input and prints a JSON result.
"""

import json
import sys
from typing import Any

import numpy as np
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException


def describe_and_predict(client: Any, model: str, version: str, rows: list[list[float]]) -> dict[str, Any]:
    """Return the pod's description and its predictions for the rows."""
    array = np.array(rows)
    tensor = triton.InferInput("input", list(array.shape), "FP64")
    tensor.set_data_from_numpy(array)
    outputs = [triton.InferRequestedOutput(name) for name in ("predict", "predict_proba")]
    result = client.infer(model, [tensor], model_version=version, outputs=outputs, request_id="a-request")
    response = result.get_response()
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model, version),
        "inputs": [[tensor.datatype, list(tensor.shape)] for tensor in client.get_model_metadata(model).inputs],
        "id": response.id,
        "version": response.model_version,
        "revision": response.parameters["rollforward_revision"].int64_param,
        "predict": result.as_numpy("predict").tolist(),
        "predict_proba": result.as_numpy("predict_proba").tolist(),
    }


def main() -> None:
    """Send one request and print the result, or the status of an error."""
    address, model, version = (*sys.argv[1:], "")[:3]
    with triton.InferenceServerClient(address) as client:
        try:
            result = describe_and_predict(client, model, version, json.load(sys.stdin))
        except InferenceServerException as error:
            result = {"status": error.status()}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
