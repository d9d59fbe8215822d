"""`headstart page`: a static site that runs the model in the visitor's browser."""
