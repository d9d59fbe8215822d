"""One module a stage: what is computed. `python -m tasks STAGE` runs one; dvc.yaml says in which order."""
