"""What the audit found, shown to people, and what they decide: a local page, a table for a spreadsheet, a list."""
