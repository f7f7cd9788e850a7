"""Policies that know a whole job before it begins."""
