"""Generators of documents from the source, and checks that these are current."""
