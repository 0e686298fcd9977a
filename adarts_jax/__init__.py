"""Attention-based differentiable architecture search in JAX/Flax: the public names."""
