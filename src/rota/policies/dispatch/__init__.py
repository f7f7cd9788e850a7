"""Dispatch rules: who goes next, decided from what is known at that instant. One rule, one file."""
