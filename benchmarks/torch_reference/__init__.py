"""Plain PyTorch version of the search: the yardstick for numbers and for speed.

Written from the published facts, with module names that match the state-dict keys of
the original checkpoints. NCHW, float32. Operations and derived networks are in
``adarts_jax.torch_reference``, which the converter needs too; nothing else of
``adarts_jax`` is imported here: the implementations stay independent.
"""
