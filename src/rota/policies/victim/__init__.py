"""Who is evicted when memory is short: one technique, one file."""
