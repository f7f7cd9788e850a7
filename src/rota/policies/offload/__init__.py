"""Which sequences keep their KV in host memory, and what the host computes meanwhile."""
