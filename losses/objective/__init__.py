"""What is minimised: terms as two sums, their layout as vectors, weights, and the table."""
