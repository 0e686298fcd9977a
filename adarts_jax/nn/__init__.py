"""Building blocks of the networks: NHWC, torch semantics, no architecture."""
