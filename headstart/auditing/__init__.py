"""What is wrong with the data: copies, wrong labels, a test split from elsewhere, junk, groups that nobody gave."""
