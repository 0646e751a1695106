"""Segmentation engines that a setting chooses; none is needed, and `core_models.segmentation.optional` names them all.

Nothing is imported here: each needs packages, weights or a server that a person put there after reading the licence.
"""
