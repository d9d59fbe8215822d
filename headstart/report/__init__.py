"""The report on a finished run, one self-contained HTML page: its texts, its figures, its pictures."""
