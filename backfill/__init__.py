"""Bulk re-embedding on Ray Data: fill a model's collection from the feature store while the stream goes on."""
