"""TF Serving's gRPC services: messages from a .proto of our own, without TensorFlow."""
