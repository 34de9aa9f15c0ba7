"""Baselines: other ways to train the same network, measured beside this engine, each in processes of its own."""
