"""Prepared datasets, their splits, the evaluation protocol and item vectors on disk. Imports basics."""
