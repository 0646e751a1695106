"""Engines and labelled scans → how good each is under a simulated reader's clicks, and the page that says so."""
