"""Recformer: a text encoder that reads a purchase history and scores items by cosine similarity."""
