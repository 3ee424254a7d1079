"""Networks as files for others: ONNX, torch.export's pt2, Keras; checked and scored before they are given away."""
