import "./style.css";

document.querySelector("#app").innerHTML = `<h1>Hello from Vite</h1><p>You are at <code>${location.pathname}</code>.</p>`;
