"""What ships: numpy and onnxruntime only."""
