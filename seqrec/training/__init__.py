"""Run folders, the Trainer, and the modules that families derive from. Imports every room before it."""
