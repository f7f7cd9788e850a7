"""Whether the next request may join what runs: one technique, one file."""
