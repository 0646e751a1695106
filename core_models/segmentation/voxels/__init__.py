"""Arithmetic on voxels that several engines share: the coarse grid, distances, floods, watersheds, smoothing."""
