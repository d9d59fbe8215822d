"""Prefect: when, where and how often the pipeline runs, and what Prefect's page shows. No computation."""
