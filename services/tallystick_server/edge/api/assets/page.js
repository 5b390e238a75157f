// Renders the operations and schemas of openapi.json, with a form to try each operation. Text is never set as markup.
"use strict";

let api;

const resolve = (part) =>
  part && part.$ref ? part.$ref.slice(2).split("/").reduce((at, key) => at[key], api) : part;

const element = (name, text, ...children) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};

// Text in which parts in backticks are code.
const prose = (name, text) => element(name, "", ...text.split("`").map(
  (part, index) => (index % 2 ? element("code", part) : document.createTextNode(part))));

const table = (rows) => element("table", "", ...rows.map((cells) => element("tr", "", ...cells)));

// The type of a value, with links to its schemas.
function type(schema) {
  const name = schema.$ref?.split("/").pop();
  if (name) return [Object.assign(element("a", name), { href: `#${name}` })];
  if (schema.anyOf) return schema.anyOf.flatMap((option, index) => [...(index ? [" or "] : []), ...type(option)]);
  if (schema.enum) return [schema.enum.join(", ")];
  if (schema.items) return ["list of ", ...type(schema.items)];
  return [schema.format ? `${schema.type} (${schema.format})` : schema.type ?? "anything"];
}

function schema(name, { description, properties, required }) {
  const rows = Object.entries(properties).map(([field, part]) => [
    element("td", "", element("code", field)),
    element("td", required.includes(field) ? "required" : ""),
    element("td", "", ...type(part)),
    prose("td", part.description ?? ""),
  ]);
  const section = element("section", "", element("h3", name), prose("p", description ?? ""), table(rows));
  return Object.assign(section, { id: name });
}

const field = (parent, label, control) => {
  parent.append(element("label", label, control));
  return control;
};

function parameters(parent, operation) {
  return operation.parameters.map((parameter) => {
    const control = element("input");
    if (parameter.schema.default !== undefined) control.placeholder = parameter.schema.default;
    const where = parameter.in === "query" ? "" : ` (${parameter.in})`;
    const required = parameter.required ? ", required" : "";
    const label = `${parameter.name}${where}${required}: ${parameter.description} `;
    parent.append(element("label", "", prose("span", label), control));
    return { ...parameter, control };
  });
}

function body(parent, operation) {
  if (!operation.requestBody) return null;
  const [[mediaType, { schema }]] = Object.entries(operation.requestBody.content);
  const [example] = resolve(schema).examples;
  parent.append(element("p", "Request body: ", ...type(schema)));
  const control = field(parent, `Body (${mediaType}) `, element("textarea"));
  control.value = mediaType === "application/json" ? JSON.stringify(example, null, 2) : new URLSearchParams(example);
  return { mediaType, control };
}

function request(path, requestBody, values) {
  const query = new URLSearchParams();
  const headers = {};
  const token = document.getElementById("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  for (const { name, in: where, control } of values) {
    if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(control.value));
    else if (control.value && where === "query") query.append(name, control.value);
    else if (control.value) headers[name] = control.value;
  }
  if (requestBody) headers["Content-Type"] = requestBody.mediaType;
  // Without cookies, so that requests from this page do not use a dashboard session.
  return [query.size ? `${path}?${query}` : path, { headers, body: requestBody?.control.value, credentials: "omit" }];
}

async function send(target, [url, options]) {
  try {
    const response = await fetch(url, options);
    let text = await response.text();
    const fields = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not JSON: shown unchanged */ }
    target.textContent = `${response.status} ${response.statusText}\n${fields}\n\n${text}`;
  } catch (error) {
    target.textContent = `Request failed: ${error.message}`;
  }
}

function responses(operation) {
  return table(Object.entries(operation.responses).map(([status, response]) => {
    const { description, content } = resolve(response);
    const [body] = Object.values(content ?? {});
    return [element("td", status), element("td", "", ...(body ? type(body.schema) : [])), prose("td", description)];
  }));
}

function show(method, path, operation) {
  const details = element("details");
  details.append(element("summary", "", element("code", `${method.toUpperCase()} ${path}`), prose("span", operation.summary)));
  details.append(Object.assign(prose("p", operation.description), { className: "text" }));
  const values = parameters(details, operation);
  const requestBody = body(details, operation);
  const button = element("button", "Send");
  const target = element("pre");
  target.hidden = true;
  button.addEventListener("click", () => {
    target.hidden = false;
    target.textContent = "...";
    const [url, options] = request(path, requestBody, values);
    send(target, [url, { ...options, method: method.toUpperCase() }]);
  });
  details.append(button, target, responses(operation));
  return details;
}

async function start() {
  api = await (await fetch("/docs/openapi.json", { credentials: "omit" })).json();
  document.getElementById("about").replaceChildren(...prose("p", api.info.description).childNodes);
  const all = Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, operation]) => show(method, path, operation)));
  const schemas = Object.entries(api.components.schemas).map(([name, part]) => schema(name, part));
  document.getElementById("operations").replaceChildren(...all, element("h2", "Schemas"), ...schemas);
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
