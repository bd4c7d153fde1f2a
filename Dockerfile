# The service in one container: a Ray cluster of one node, its HTTP proxy and the replicas. The same image is head and
# worker of a KubeRay cluster (configs/kuberay/rayservice.yaml), where `ray start` takes the place of the entry point.
#
#   docker build --tag retrieval-model-server .
#   docker run --init --shm-size 2g --stop-timeout 60 --publish 8000:8000 --volume models:/app/models \
#     retrieval-model-server
#
#   --shm-size      Ray keeps its object store in /dev/shm. Docker's 64 MB make Ray fall back to a slow folder.
#   --stop-timeout  Requests in flight are answered before the container ends; Docker's own 10 seconds may cut them.
#   --init          Collects processes that lost their parent.
#   --gpus all      For GPUs; needs the NVIDIA container toolkit on the host, nothing more in the image.
#   --build-arg BASE_IMAGE=python@sha256:...   A base image that you have examined (docs/security.md).
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

WORKDIR /app

# Dependencies before the source, so that a change of the source does not install them again. Empty: torch as the
# package index has it, which on Linux x86-64 is the build with CUDA (several GB). For a small CPU image pass the CPU
# wheel index that pytorch.org's install page names; only torch comes from there, at the same version.
ARG TORCH_INDEX_URL=""
# The lock files have the hash of every file; torch from another index is another file, so it has none.
COPY constraints.txt requirements.lock requirements-torch.lock ./
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
        pip install --no-deps --index-url "$TORCH_INDEX_URL" --constraint constraints.txt torch; \
    else \
        pip install --no-deps --require-hashes --requirement requirements-torch.lock; \
    fi \
    && pip install --no-deps --require-hashes --requirement requirements.lock \
    && pip check

# A number, so that Kubernetes can see that it is not root. A new volume inherits the owner of /app/models.
RUN useradd --create-home --uid 1000 retrieval \
    && mkdir --parents /app/models \
    && chown 1000:1000 /app/models

# Ray's workers import the code from here, wherever they start.
ENV PYTHONPATH=/app
COPY serve_app serve_app
COPY training training
COPY configs configs

# The same as configs/serve.env, which explains each; a test compares them. The variable of two lines cannot be written
# here: serve_app/launch/command.py sets it.
ENV RAY_SERVE_ENABLE_HA_PROXY=1 \
    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 \
    RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response" \
    RAY_SERVE_HAPROXY_RETRIES=3 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.api.middleware.edge.middlewares \
    RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=268435456 \
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=2 \
    RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S=60

# OpenMP threads that sleep while they wait: spinning ones make a shared machine tens of times slower.
ENV OMP_WAIT_POLICY=PASSIVE \
    GOMP_SPINCOUNT=0

# The model: a folder of that name in MODELS_DIR if there is one, else it is downloaded at the first start, into the
# volume. MODEL_NAME wins over the first model of a YAML file; set it empty to let the file decide.
ENV MODEL_NAME=intfloat/multilingual-e5-large \
    MODELS_DIR=/app/models \
    JOBS_DIR=/app/models/.jobs \
    HF_HOME=/app/models/.hub
VOLUME /app/models

USER 1000:1000

# 8265 is the Ray dashboard. `ray start --dashboard-host 0.0.0.0` (KubeRay does it) opens it to the network; the entry
# point below leaves it on the container's loopback, because it can run any code.
EXPOSE 8000 8265

# A real forward. The first start downloads the model, hence the start period; success ends it early.
HEALTHCHECK --interval=15s --timeout=8s --start-period=20m --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; \
         r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/readyz', timeout=7)"]

# The exec form: signals reach Python itself. SIGTERM and SIGINT both stop the service gently (serve_app/launch).
ENTRYPOINT ["python", "-m", "serve_app"]
CMD ["configs/container.yaml"]
