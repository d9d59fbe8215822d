"""Serves finished models over HTTP: `headstart serve`. It needs the extra `serve`."""
