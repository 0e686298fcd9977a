"""Plain PyTorch version of the derived networks: the yardstick for converted weights.

Written from the published facts, with module names that match the state-dict keys of
the original checkpoints, so ``load_state_dict(strict=True)`` reads them. NCHW, float32.
Nothing else of ``adarts_jax`` is imported here: the implementations stay independent.
"""
