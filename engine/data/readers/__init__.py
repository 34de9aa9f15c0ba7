"""Readers of formats: each finds the files of a set, and hands over its parts; `formats` asks them in turn."""
