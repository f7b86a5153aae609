"""PLMSASRec: SASRec over items that a language model encodes, trained end to end or with frozen, cached blocks."""
