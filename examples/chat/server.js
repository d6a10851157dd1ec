const fs = require("node:fs");
const http = require("node:http");
const { WebSocketServer } = require("ws");

const page = fs.readFileSync("public/index.html");
const server = http.createServer((request, response) => {
  response.setHeader("content-type", "text/html; charset=utf-8");
  response.end(page);
});
const sockets = new WebSocketServer({ server, path: "/chat" });
sockets.on("connection", (socket) => {
  socket.send("welcome");
  socket.on("message", (data) => {
    for (const client of sockets.clients) client.send(data.toString());
  });
});
server.listen(process.env.PORT, process.env.HOST || "0.0.0.0");
process.on("SIGTERM", () => {
  for (const client of sockets.clients) client.close(1001, "restarting");
  server.close(() => process.exit(0));
});
