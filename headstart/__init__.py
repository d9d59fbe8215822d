"""The vocabulary that the pipeline's stages share, and the torch-free command line for those who deploy."""
