"""Self-distillation: a network that teaches itself by sub-networks, its history, mixed images, or paired images."""
