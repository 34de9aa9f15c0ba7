"""A Ray that only this process can use: where it lies, what it may take from us, how it starts and how it ends."""
