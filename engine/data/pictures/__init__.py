"""Pictures from encoded bytes to pixels: formats, limits, decoding in bounded memory, and one size for all."""
