"""Shops, projects and single machines: one problem model, its JSON form, and readers of the usual instance formats."""
