"""One self-contained HTML page on a finished run: its words, its figures, its pictures."""
