"""What can be searched: integers and strings. Nothing in this package uses JAX."""
