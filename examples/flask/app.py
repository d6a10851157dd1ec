from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def index() -> str:
    return "<!doctype html><title>Flask</title><h1>Hello from Flask</h1>"


@app.get("/api/sum/<int:a>/<int:b>")
def total(a: int, b: int):
    return jsonify(sum=a + b)
