"""Language models: their files, their tokens, and encoding a catalogue. Imports basics, data and nn."""
