"""Whole networks: the search network and the networks derived from genotypes."""
