"""Readers of raw data, one short module per layout; each gives `seqrec.data.preparation.RawData`."""
