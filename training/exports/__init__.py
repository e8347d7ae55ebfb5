"""How a student becomes ONNX, fp32 and int8, checked and described. `training.export` and `training.publish` run it."""
