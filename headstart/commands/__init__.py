"""The command `headstart`: one command line for a project and for a finished model."""
