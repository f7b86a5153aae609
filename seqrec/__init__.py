"""The instruments that every family is measured and run with; knows no model by name."""
