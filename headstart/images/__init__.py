"""The bytes of an image file -> upright RGB uint8, or the reason why not. Training and deployment read alike.

`decoding.decode` is for files that are known to be sound. A `limited.Reader` is for files of strangers: it bounds
pixels, seconds and memory. The package needs only numpy, Pillow and, if installed, simplejpeg.
"""
