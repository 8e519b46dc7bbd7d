# Image for GPUs: docs/install.md has the commands. The machine needs NVIDIA's driver and container toolkit, but no CUDA,
# because the wheels of torch bring theirs.
FROM python:3.12-slim

# Index of torch's wheels: cu126 for drivers before 570 and for older cards, cpu for none.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu128

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HF_HOME=/whisper-ft/.cache/huggingface

WORKDIR /whisper-ft
# torch first: anything else that needs it would bring another build.
RUN pip install "torch>=2.13,<3" --index-url "$TORCH_INDEX"
COPY . .
RUN pip install -e '.[adapter,av,web,tensorboard]' \
    && useradd --create-home --uid 1000 trainer && mkdir -p runs my-data .cache && chown -R trainer /whisper-ft
USER trainer

# `docker stop` sends SIGTERM, on which a run saves and ends; give it time with `docker stop -t 120`.
CMD ["whisper-ft", "--help"]
