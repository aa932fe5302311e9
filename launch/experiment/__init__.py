"""Train networks on the same data, score them and write a table with images.

`colortrain compare` and `colortrain reproduce` are two command lines of this engine.
"""
