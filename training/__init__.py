"""The training: the program that a fine-tune's Ray Job runs, as ``python -m training JOB_DIR``.

It shares only the job folder with the service (``serve_app.jobs.training_spec``) and the models that both read.
"""

import serve_app.models  # noqa: F401 - sets OpenMP's environment before a module here imports torch
