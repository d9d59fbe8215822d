"""The questions that the report answers, one module and one template each."""
