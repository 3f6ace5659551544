"""A model for places where PyTorch does not fit: as ONNX graphs with a program of one file, and as a web page."""
