"""From an image to its features."""
