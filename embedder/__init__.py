"""Text to vector: a published student in ONNX Runtime. Never torch."""
