"""Models: weights, tokenisers and the maths on top of them.

Importing the package sets OpenMP's environment, which must be done before torch is imported.
"""

from serve_app.models.openmp import wait_passively

wait_passively()
