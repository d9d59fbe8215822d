"""The questions that the page answers, one module and one template each."""
