"""The mathematics that balancers share: quadratic programs, eigenvectors, draws."""
