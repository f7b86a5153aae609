"""Candidates, ranks and metrics. Imports basics and data."""
