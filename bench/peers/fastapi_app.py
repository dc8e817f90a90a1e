"""python3 fastapi_app.py: FastAPI on uvicorn, whose own signal handling and graceful time-out do the rest.

Or behind the gate: master-agent guard -- uvicorn --app-dir bench/peers fastapi_app:app --uds {socket}
"""

import asyncio
import inspect
import os
import time

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response, StreamingResponse

if "START_DELAY_MS" in os.environ:
    print("starting", flush=True)
    time.sleep(int(os.environ["START_DELAY_MS"]) / 1000)

app = FastAPI()
LARGE = b"x" * (20 * 1024 * 1024)


@app.get("/")
async def hello():
    return PlainTextResponse("hello\n")


@app.get("/slow")
async def slow(ms: int):
    await asyncio.sleep(ms / 1000)
    return PlainTextResponse("slow\n")


@app.get("/stream")
async def stream(ms: int):
    async def pieces():
        yield "first\n"
        await asyncio.sleep(ms / 1000)
        yield "last\n"

    return StreamingResponse(pieces())


@app.get("/block")
async def block(ms: int):
    async def pieces():
        yield "first\n"
        time.sleep(ms / 1000)
        yield "last\n"

    return StreamingResponse(pieces())


@app.get("/large")
async def large():
    return Response(LARGE)


@app.get("/hang")
async def hang():
    await asyncio.Event().wait()


@app.post("/upload")
async def upload(request: Request):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return PlainTextResponse(f"{size}\n")


if __name__ == "__main__":
    options = {}
    # Older versions, as that of Debian 12, wait without an end.
    if "timeout_graceful_shutdown" in inspect.signature(uvicorn.Config.__init__).parameters:
        options["timeout_graceful_shutdown"] = int(os.environ["SHUTDOWN_TIMEOUT"])
    uvicorn.run(app, port=int(os.environ["PORT"]), log_level="warning", **options)
