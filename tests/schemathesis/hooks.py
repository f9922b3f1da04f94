"""What the tool must be told: bytes as they are, entity tags, and what would end its own test."""

import schemathesis
from hypothesis import strategies as st

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


# Of headers the tool narrows what it makes to letters and digits, unless their format is one it was told of.
schemathesis.openapi.format(
    "entity-tags", st.from_regex(r'\A(\*|(W/)?"[!#-~]{0,9}"(, (W/)?"[!#-~]{0,9}"){0,3})\Z')
)


@schemathesis.hook
def before_call(ctx, case, kwargs):
    """A caller that limits its own project or organisation to nothing is told 429 from then on, and tests nothing more."""
    limits = isinstance(case.body, dict) and {"limits", "ceilings", "budget_micro"} & case.body.keys()
    for name, value in (case.path_parameters or {}).items():
        if limits and value == "default":
            case.path_parameters[name] = "another"
