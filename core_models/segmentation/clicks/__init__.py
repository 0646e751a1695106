"""The learned engine that answers clicks: its network, what that reads, who answers instead, and their training."""
