"""Where vectors live. The only importer of qdrant_client and qdrant_edge."""
