"""What every stage uses: errors, files, tables, progress."""
