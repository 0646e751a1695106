"""A segment → a suggested name: the table of two labelled CTs, rules where it is unsure, and how both are judged."""
