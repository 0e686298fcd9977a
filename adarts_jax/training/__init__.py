"""Training a derived network: its loss and its step."""
