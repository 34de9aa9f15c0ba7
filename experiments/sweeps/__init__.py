"""Shipped searches over the fields of recipes."""
