"""What is said of held-out images."""
