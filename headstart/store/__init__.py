"""The content-addressed array store."""
