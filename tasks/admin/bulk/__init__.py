"""Acts on many tasks at once."""
