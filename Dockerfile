# docker build -t moda .                        CPU
# docker build -t moda:cuda --target cuda .     an NVIDIA GPU: docker run --gpus all ...
# docker run --rm -v "$PWD:/work" moda generate portrait.png speech.wav -o out.mp4
# Not built where this was written: there was no Docker daemon.
FROM python:3.12-slim AS source
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE weights.toml ./
COPY examples examples
COPY src src

FROM source AS cuda
# Triton builds the launchers of its kernels with a C compiler.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir -c constraints.txt .
ENV MODA_CACHE=/cache/moda HF_HOME=/cache/huggingface
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["moda"]

FROM source AS cpu
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.6,<2.14" \
 && pip install --no-cache-dir -c constraints.txt .
ENV MODA_CACHE=/cache/moda HF_HOME=/cache/huggingface
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["moda"]
