"""Trained networks in use: colorizing photographs, ONNX export and model cards."""
