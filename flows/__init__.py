"""Prefect: when, where and how often the pipeline runs, and what its UI shows. No computation."""
