"""From a trained model to the file that ships: graphs, precisions, parity, targets (torch, onnx, onnxruntime)."""

TARGETS = (
    "onnx",
    "openvino",
    "ort",
    "web",
    "hugging-face",
    "tensorrt",
)  # how each is written stands in targets.WRITERS
PRECISIONS = (  # of the text encoder; how each is made stands in quantization.CANDIDATES
    "int8-weights",
    "fp32",
    "fp16",
    "int8-dynamic",
    "int8-static",
    "int8-blocks",
    "int4-blocks",
    "int8-qdq",
    "qat",
)
GOALS = ("balanced", "latency", "size")
