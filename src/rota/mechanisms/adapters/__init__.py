"""Rota inside other people's systems: Ray runs its studies and its engines, vLLM asks its policies. Each needs an extra of its name."""
