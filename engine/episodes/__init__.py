"""Meta-training on episodes: where tasks come from, and the loop over them."""
