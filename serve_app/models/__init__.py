"""Models: weights, tokenisers and the maths on top of them."""
