"""From a trained model to the file that ships: graphs, precisions, parity, targets (torch, onnx, onnxruntime)."""

TARGETS = ("onnx",)
PRECISIONS = ("int8-dynamic", "fp32", "qat")
