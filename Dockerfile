# The exact packages for a GPU server: CUDA comes with them, the driver from the host.
# The project itself is mounted: docs/gpu-server.md.
FROM python:3.11-slim

RUN apt-get update && apt-get install --yes --no-install-recommends git make openssh-client && rm -rf /var/lib/apt/lists/*

COPY requirements-gpu.lock /
RUN python -m pip install --no-cache-dir --require-hashes -r /requirements-gpu.lock

# Nothing runs as root. With `docker run --user` the checkout's owner on the host takes the place of this user; git
# trusts that one folder whoever owns it.
RUN useradd --create-home nuclei-unet && git config --system --add safe.directory /nuclei-unet \
    && git config --system user.name nuclei-unet && git config --system user.email nuclei-unet@localhost
ENV HOME=/tmp USER=nuclei-unet
WORKDIR /nuclei-unet
USER nuclei-unet
CMD ["dvc", "repro"]
