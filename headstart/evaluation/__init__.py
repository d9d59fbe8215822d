"""Predictions on held-out images, their scores, and the choice of what ships."""
