"""FastAPI with the schema as pydantic models, as its users write it; served by uvicorn.

The models say by hand what schemas/metrics.json says; the harness posts good and bad
documents to every server before it measures, so a difference would be seen.
"""

from typing import Annotated, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, StrictStr

TagName = Annotated[StrictStr, Field(min_length=1, max_length=255)]
TagValue = Annotated[StrictStr, Field(max_length=1024)]


class Metric(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=255)]
    value: Annotated[float, Field(allow_inf_nan=False)]
    type: Literal["gauge", "counter", "histogram", "summary"]
    tags: Annotated[dict[TagName, TagValue], Field(max_length=64)] = {}


class Batch(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    metrics: Annotated[list[Metric], Field(min_length=1, max_length=1000)]


app = FastAPI()


@app.post("/metrics", status_code=202)
async def metrics(batch: Batch) -> dict[str, int]:
    return {"accepted": len(batch.metrics)}
