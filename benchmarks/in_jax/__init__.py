"""JAX as a contestant, in a process of its own: `lax.scan` and optax, as its users write it."""
