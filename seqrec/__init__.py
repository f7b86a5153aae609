"""The instruments that every family is measured and run with; knows no model by name."""

__version__ = "0.1.0"
