"""Use trained networks: colorize photographs, export to ONNX, write model cards."""
