"""One module per stage: the computation. `python -m tasks STAGE` runs one; dvc.yaml sets the order."""
