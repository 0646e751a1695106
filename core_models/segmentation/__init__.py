"""Volume and clicks → mask, and what follows from a mask: measurements, a surface, a suggested name, scores.

`engine` says what an engine is, `registry` and `optional` name them all; `clicks` holds the learned one, `bigger` those
that a setting chooses, `voxels` the arithmetic they share, `naming` what a segment may be called and `judging` the
figures.  Nothing is imported here: the registries stay cheap for whoever only needs names.
"""
