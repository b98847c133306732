# Images for docker-compose.yml, one for each target. docs/deploy.md says how to build and run them.
# Versions are those that the tests run with: see constraints.txt and the Makefile.

# Requirements first: a change of the code does not install them again.
FROM python:3.11.14-slim-bookworm AS packages
WORKDIR /build
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir shardwright \
    && touch shardwright/__init__.py \
    && python -m venv /opt/shardwright \
    && /opt/shardwright/bin/pip install --no-cache-dir --constraint constraints.txt \
      '.[aws,cpu,openlineage,prometheus,service]'
COPY shardwright shardwright
RUN /opt/shardwright/bin/pip install --no-cache-dir --constraint constraints.txt \
      --force-reinstall --no-deps .

# Drivers, Beam's workers, and the command line.
FROM python:3.11.14-slim-bookworm AS shardwright
RUN useradd --uid 10001 --create-home shardwright \
    && install --directory --owner 10001 --group 10001 /curations
COPY --from=packages /opt/shardwright /opt/shardwright
# Caches, and the local folders of outputs in a store, lie where all workers see them.
ENV PATH=/opt/shardwright/bin:$PATH XDG_CACHE_HOME=/curations/.cache
USER 10001:10001
CMD ["shardwright", "--help"]

# Airflow's requirements are its own: it calls Shardwright as a command.
FROM python:3.11.14-slim-bookworm AS airflow-packages
WORKDIR /build
COPY constraints-airflow.txt ./
RUN python -m venv /opt/airflow \
    && /opt/airflow/bin/pip install --no-cache-dir --constraint constraints-airflow.txt \
      apache-airflow apache-airflow-providers-openlineage asyncpg psycopg2-binary

FROM shardwright AS airflow
USER 0:0
RUN install --directory --owner 10001 --group 10001 /var/lib/airflow
COPY --from=airflow-packages /opt/airflow /opt/airflow
COPY dags /opt/dags
ENV PATH=/opt/airflow/bin:$PATH AIRFLOW_HOME=/var/lib/airflow
USER 10001:10001
CMD ["airflow", "version"]

FROM maven:3.9.11-eclipse-temurin-17 AS job-server
COPY tests/runners/job_server.xml /build/
RUN mvn --batch-mode --quiet --file /build/job_server.xml -Dfolder=/build/jar package

FROM python:3.11.14-slim-bookworm AS flink-libraries
WORKDIR /build/lib
RUN pip download --no-cache-dir --no-deps --dest /build apache-flink-libraries==1.19.3 \
    && tar --extract --file /build/apache-flink-libraries-1.19.3.tar.gz --strip-components 3 \
      --wildcards '*/deps/lib/flink-dist*' '*/deps/lib/log4j*' \
    && rm /build/*.tar.gz

# Flink's job manager and task managers, and Beam's job server.
FROM eclipse-temurin:17.0.15_6-jre-jammy AS flink
RUN useradd --uid 10001 flink \
    && install --directory --owner 10001 --group 10001 /var/lib/flink
COPY --from=flink-libraries /build/lib /opt/flink/lib
COPY --from=job-server /build/jar/flink-job-server-1.jar /opt/flink/job-server.jar
COPY deploy/flink /opt/flink/conf
ENV LOG4J_CONFIGURATION_FILE=/opt/flink/conf/log4j.properties
USER 10001:10001
CMD ["java", "-version"]

FROM golang:1.26.4-alpine AS gateway
RUN CGO_ENABLED=0 GOBIN=/build \
    go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

# An S3-compatible store in a folder; its buckets are the folders below.
FROM alpine:3.22.2 AS store
RUN adduser -D -u 10001 store \
    && install -d -o 10001 -g 10001 /store /store/shardwright
COPY --from=gateway /build/versitygw /usr/local/bin/versitygw
USER 10001:10001
CMD ["versitygw", "--help"]
