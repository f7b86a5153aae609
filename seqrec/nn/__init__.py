"""Layers, losses and optimisers on ragged batches, for models of any family. Imports basics and data."""
