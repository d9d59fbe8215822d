"""Heads on features: how they are chosen, fitted and written."""
