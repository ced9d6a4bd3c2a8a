"""The network: how to build it, set up TensorFlow and store a model."""
