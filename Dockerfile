FROM python:3.13-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[serve]' \
    && rm -rf /src/* && useradd --create-home caption
USER caption
WORKDIR /images
EXPOSE 8765
ENTRYPOINT ["latentcap", "serve", "--host", "0.0.0.0"]
