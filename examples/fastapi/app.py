"""A FastAPI service as it is without us: nothing in it knows of the gate.

    master-agent guard -- uvicorn app:app --uds {socket}
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from fastapi import FastAPI, HTTPException

DATABASE = Path("orders.sqlite")

app = FastAPI()


@app.on_event("startup")
def create_orders():
    with closing(sqlite3.connect(DATABASE)) as database, database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)")


@app.get("/health")
def health():
    return {"status": "healthy"}


@app.get("/report")
async def report(seconds: float = 5):
    """Takes its time."""
    await asyncio.sleep(seconds)
    return {"report": "done", "seconds": seconds}


@app.post("/data", status_code=201)
def add(item: str):
    with closing(sqlite3.connect(DATABASE)) as database, database:
        number = database.execute("INSERT INTO orders (item) VALUES (?)", (item,)).lastrowid
    return {"id": number, "item": item}


@app.get("/data/{number}")
def read(number: int):
    with closing(sqlite3.connect(DATABASE)) as database:
        row = database.execute("SELECT item FROM orders WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise HTTPException(status_code=404, detail="no such order")
    return {"id": number, "item": row[0]}
