# Galen on NVIDIA's PyTorch container, which has PyTorch for CUDA, Transformer Engine and apex. See docs/slurm.md.
#   docker build -t galen .        another release: --build-arg BASE=nvcr.io/nvidia/pytorch:25.12-py3
ARG BASE=nvcr.io/nvidia/pytorch:25.11-py3
FROM ${BASE}
WORKDIR /opt/galen
# The container holds all its packages at what it was built with (PIP_CONSTRAINT), some below what Galen needs. Held from here on: its own
# builds, which no index has, and NumPy where it is 2 already.
RUN python -m pip list --format=freeze \
      | grep -iE '^(torch|torchvision|transformer.engine[^=]*|flash.attn|(pytorch.)?triton)==|^numpy==[2-9]' > /etc/galen-held.txt; \
    grep '^torch==' /etc/galen-held.txt || { echo "error: the base image has no PyTorch; see the head of the Dockerfile" >&2; exit 1; }
# The last one: the container lets fp32 products run in TF32, and a comparison of checkpoints in fp32 would see its error.
ENV PIP_CONSTRAINT=/etc/galen-held.txt PIP_BREAK_SYSTEM_PACKAGES=1 TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=0
COPY pyproject.toml ./
# Without torch: a preview such as 2.9.0a0 is below 2.9 to pip, and here it is enough that megatron-core takes it.
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][room] for room in ('data', 'convert', 'train', 'eval', 'finetune')]; \
print(*(wanted for extra in [project['dependencies'], *extras] for wanted in extra if not wanted.startswith('galen[')), sep='\\n')" \
      | grep -v '^torch[<>=]' > /tmp/wanted.txt && \
    python -m pip install --no-cache-dir -r /tmp/wanted.txt
COPY . .
RUN python -m pip install --no-cache-dir --no-deps --editable .
