"""Offline solvers of shops, projects and single machines: they decide everything at once."""
