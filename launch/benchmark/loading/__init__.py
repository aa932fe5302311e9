"""The readers and loaders that `colortrain benchmark loader` compares."""
