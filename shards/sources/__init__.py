"""Read source images: listing, archives, and decoding to upright sRGB."""
