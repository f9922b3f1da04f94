"""Bodies and answers that are neither JSON nor text: bytes, as they are."""

import schemathesis

BYTES = (
    "application/octet-stream",
    "application/wasm",
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
    "application/vnd.apache.arrow.file",
    "application/vnd.apache.parquet",
    "application/vnd.forgepool.evidence",
    "application/vnd.forgepool.audit+jsonl",
    "application/x-tar",
    "text/event-stream",
    "text/csv",
    "application/openmetrics-text",
    "*/*",
)


@schemathesis.serializer(*BYTES)
def as_bytes(ctx, value):
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.deserializer(*BYTES)
def as_text(ctx, response):
    return response.content.decode("utf-8", "replace")
