"""Plain PyTorch version of the same networks: the yardstick for numbers and for speed.

Written from the published facts, with module names that match the state-dict keys of
the original checkpoints, so ``load_state_dict(strict=True)`` reads them. NCHW, float32.
Nothing of ``adarts_jax`` is imported here: the two implementations stay independent.
"""
