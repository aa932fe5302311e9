"""What became of one run or several, as one HTML file that opens from disk and asks no network."""
