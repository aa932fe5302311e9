"""A trained network in use: loaded, saved, colouring photographs; as ONNX; its model card."""
