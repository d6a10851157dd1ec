const express = require("express");

const app = express();
app.get("/", (request, response) => response.send("<!doctype html><title>Express</title><h1>Hello from Express</h1>"));
app.get("/whoami", (request, response) => response.json({ host: request.headers.host, pid: process.pid }));

const port = process.env.PORT || 3000;
const server = app.listen(port, process.env.HOST || "0.0.0.0", () => console.log(`listening on ${port}`));
process.on("SIGTERM", () => server.close(() => process.exit(0)));
