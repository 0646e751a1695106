"""Volume and clicks → mask, and what follows from a mask: measurements, a surface, a suggested name, scores.

Nothing is imported here: `registry` and `labels` stay cheap for whoever only needs names.
"""
