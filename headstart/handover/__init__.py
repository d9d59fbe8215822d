"""The finished model: what it carries, how it is run, checked and served."""
