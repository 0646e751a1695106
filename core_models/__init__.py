"""Scans, segments, encoders and drafts: no web, no database.  Nothing here imports `retrieval` or `webapp`."""
