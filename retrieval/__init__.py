"""Prior reports: corpora, embeddings, index, search, and the guard around untrusted text.  Imports core_models only."""
