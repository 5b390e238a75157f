// Shows every operation of openapi.json with a form to try it. All text is set as text, never as markup.
"use strict";

let api;

const resolve = (part) =>
  part && part.$ref ? part.$ref.slice(2).split("/").reduce((at, key) => at[key], api) : part;

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

// Text in which `this` is code.
const prose = (name, text) => element(name, "", ...text.split("`").map(
  (part, place) => (place % 2 ? element("code", part) : document.createTextNode(part))));

const field = (parent, label, control) => {
  parent.append(element("label", label, control));
  return control;
};

function parameters(parent, operation) {
  return operation.parameters.map((each) => {
    const control = element("input");
    if (each.schema.default !== undefined) control.placeholder = each.schema.default;
    const where = each.in === "query" ? "" : ` (${each.in})`;
    const required = each.required ? ", required" : "";
    parent.append(element("label", "", prose("span", `${each.name}${where}${required}: ${each.description} `), control));
    return { ...each, control };
  });
}

function body(parent, operation) {
  if (!operation.requestBody) return null;
  const [[type, { schema }]] = Object.entries(operation.requestBody.content);
  const [example] = resolve(schema).examples;
  const control = field(parent, `Body (${type}) `, element("textarea"));
  control.value = type === "application/json" ? JSON.stringify(example, null, 2) : new URLSearchParams(example);
  return { type, control };
}

function request(path, sent, given) {
  const query = new URLSearchParams();
  const headers = {};
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  for (const { name, in: where, control } of given) {
    if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(control.value));
    else if (control.value && where === "query") query.append(name, control.value);
    else if (control.value) headers[name] = control.value;
  }
  if (sent) headers["Content-Type"] = sent.type;
  // Without cookies: what a signed-in browser may do elsewhere is not tried from here.
  return [query.size ? `${path}?${query}` : path, { headers, body: sent?.control.value, credentials: "omit" }];
}

async function answer(target, [url, options]) {
  try {
    const got = await fetch(url, options);
    const text = await got.text();
    const fields = [...got.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    let shown = text;
    try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: as it is */ }
    target.textContent = `${got.status} ${got.statusText}\n${fields}\n\n${shown}`;
  } catch (error) {
    target.textContent = `No answer: ${error.message}`;
  }
}

function responses(operation) {
  const table = element("table");
  for (const [status, response] of Object.entries(operation.responses)) {
    table.append(element("tr", "", element("td", status), prose("td", resolve(response).description)));
  }
  return table;
}

function show(method, path, operation) {
  const details = element("details");
  details.append(element("summary", "", element("code", `${method.toUpperCase()} ${path}`), prose("span", operation.summary)));
  details.append(Object.assign(prose("p", operation.description), { className: "text" }));
  const given = parameters(details, operation);
  const sent = body(details, operation);
  const button = element("button", "Send");
  const target = element("pre");
  target.hidden = true;
  button.addEventListener("click", () => {
    target.hidden = false;
    target.textContent = "...";
    const [url, options] = request(path, sent, given);
    answer(target, [url, { ...options, method: method.toUpperCase() }]);
  });
  details.append(button, target, responses(operation));
  return details;
}

async function start() {
  api = await (await fetch("/docs/openapi.json", { credentials: "omit" })).json();
  document.getElementById("about").replaceChildren(...prose("p", api.info.description).childNodes);
  const all = Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => show(method, path, operation)));
  document.getElementById("operations").replaceChildren(...all);
}

start();
