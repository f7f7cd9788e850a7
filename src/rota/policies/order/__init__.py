"""Which waiting request comes next: one technique, one file."""
