from fastapi import FastAPI

app = FastAPI(title="Greeter")


@app.get("/")
def index() -> dict[str, str]:
    return {"message": "Hello from FastAPI"}


@app.get("/hello/{name}")
def hello(name: str) -> dict[str, str]:
    return {"message": f"Hello {name}"}
