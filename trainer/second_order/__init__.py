"""Second-order methods over the whole data: the last phase of a training."""
