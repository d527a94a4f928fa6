"""Ask a pod for predictions of two rows, over the Open Inference Protocol."""

import os

import grpc
from sklearn.datasets import load_breast_cancer

from rollforward.inference import open_inference_pb2 as oip
from rollforward.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

rows = load_breast_cancer().data[[0, 19]]

with grpc.insecure_channel(os.environ.get("ROLLFORWARD_POD_GRPC", "127.0.0.1:9000")) as channel:
    request = oip.ModelInferRequest(model_name="tumour-detector")
    tensor = request.inputs.add(name="input", datatype="FP64", shape=rows.shape)
    tensor.contents.fp64_contents.extend(rows.flat)
    answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    print(f"v{answer.model_version} predicts {list(answer.outputs[0].contents.int64_contents)}")
