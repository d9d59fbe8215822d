"""Pretrained networks: found by name, cut, exported."""
