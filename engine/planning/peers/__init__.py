"""Ways of training the same network beside which this engine is measured, each in processes of its own."""
