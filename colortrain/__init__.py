"""Recipes, networks, training and evaluation: shards in, trained colorization networks out."""
