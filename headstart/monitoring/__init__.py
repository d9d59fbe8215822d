"""Whether the images that a finished model meets are still like those that it was tested on; torch-free."""
