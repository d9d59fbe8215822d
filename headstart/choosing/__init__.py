"""Which images without labels to label next."""
