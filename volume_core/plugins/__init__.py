"""Where other packages come in: the hooks, who implements them, and how they are called."""
