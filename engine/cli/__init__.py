"""The command line: one file per command; torch, ray and pydantic are imported only by the command that needs them."""
