# The platform's image in a task of ECS (runners/task.py): built from the root of the source, pushed to a registry that
# the tasks can reach, and named by ATTUNE_TASK_IMAGE at `make deploy`.
FROM busybox:musl AS shell

FROM python:3.11-slim
COPY --from=shell /bin/busybox /usr/bin/busybox
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --require-hashes --requirement /tmp/requirements.txt && rm /tmp/requirements.txt
COPY chalicelib/__init__.py chalicelib/protocol.py /opt/attune/chalicelib/
COPY runners /opt/attune/runners
ENV PYTHONPATH=/opt/attune PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python3", "-m", "runners.task"]
