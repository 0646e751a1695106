"""The page, the store, the jobs and the exports."""
