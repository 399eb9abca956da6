# The tool with its hosts (EvalScope and MTEB) on CPU torch; the models are served elsewhere.
#   docker build -t evalscope-vacc .
#   docker run --rm -v "$PWD:/work" evalscope-vacc run http://HOST:8000 --preset quick
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1
# first, so that a change of the source does not install it anew
RUN pip install torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml hatch_build.py README.md LICENSE evalscope_vacc.pth evalscope_vacc.start ./
COPY evalscope_vacc evalscope_vacc
RUN pip install .

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 1000 vacc && mkdir /work && chown vacc /work
USER vacc
WORKDIR /work
ENTRYPOINT ["evalscope-vacc"]
CMD ["--help"]
