"""Which of several backbones suits these images."""
