"""What carries schedules of shops out, and what checks them."""
