// Shows every operation and schema of openapi.json, and a form to try each operation. Text is set as text, never as markup.
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

// Text in which `this` is code.
const prose = (name, text) => element(name, "", ...text.split("`").map(
  (part, place) => (place % 2 ? element("code", part) : document.createTextNode(part))));

const table = (rows) => element("table", "", ...rows.map((cells) => element("tr", "", ...cells)));

// The type of a value, with links to the schemas that it holds.
function type(schema) {
  const name = schema.$ref?.split("/").pop();
  if (name) return [Object.assign(element("a", name), { href: `#${name}` })];
  if (schema.anyOf) return schema.anyOf.flatMap((option, place) => [...(place ? [" or "] : []), ...type(option)]);
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
  const [[mediaType, { schema }]] = Object.entries(operation.requestBody.content);
  const [example] = resolve(schema).examples;
  parent.append(element("p", "Schema of the body: ", ...type(schema)));
  const control = field(parent, `Body (${mediaType}) `, element("textarea"));
  control.value = mediaType === "application/json" ? JSON.stringify(example, null, 2) : new URLSearchParams(example);
  return { mediaType, control };
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
  if (sent) headers["Content-Type"] = sent.mediaType;
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
  const schemas = Object.entries(api.components.schemas).map(([name, part]) => schema(name, part));
  document.getElementById("operations").replaceChildren(...all, element("h2", "Schemas"), ...schemas);
  document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

start();
