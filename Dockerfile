# Galen on NVIDIA's PyTorch container, which has PyTorch for CUDA, Transformer Engine and apex. See docs/slurm.md.
#   docker build -t galen .        another release: --build-arg BASE=nvcr.io/nvidia/pytorch:25.12-py3
ARG BASE=nvcr.io/nvidia/pytorch:25.11-py3
FROM ${BASE}
WORKDIR /opt/galen
COPY pyproject.toml ./
COPY galen/__init__.py galen/__init__.py
# What pyproject.toml lists and the container lacks. The container's own PyTorch and Transformer Engine are held where they are.
RUN python -m pip list --format=freeze | grep -iE '^(torch|torchvision|transformer.engine|flash.attn|triton|numpy)==' > /tmp/held.txt; \
    python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\\n')" \
      | grep -vE '^torch[<>=]' > /tmp/wanted.txt && \
    PIP_CONSTRAINT=/tmp/held.txt python -m pip install --no-cache-dir -r /tmp/wanted.txt
COPY . .
RUN python -m pip install --no-cache-dir --no-deps --editable .
