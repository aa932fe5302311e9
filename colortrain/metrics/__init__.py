"""How good generated pictures are; `images` holds what can be said of each picture by itself."""
