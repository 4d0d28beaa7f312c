"""What is in the data, and whether it is sound to score on: leaks, near-duplicates, balance, lengths, levels."""
