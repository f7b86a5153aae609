"""BERT4Rec: a bidirectional transformer over item ids, which may start from a language model's item vectors."""
