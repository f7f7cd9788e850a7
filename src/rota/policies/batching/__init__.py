"""What one engine runs in its next step: iteration-level batching policies."""
