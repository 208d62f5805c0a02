"""Drawn faces with the schema of CelebA."""
