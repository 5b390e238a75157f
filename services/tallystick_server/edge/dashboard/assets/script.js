// Without script every page works, in UTC. With it: times in the viewer's zone, copying, and numbers that stay fresh.
"use strict";

const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (time.hasAttribute("data-exact")) time.textContent = exact.format(date);
    time.title = full.format(date);
  }
}

function pad(number) {
  return String(number).padStart(2, "0");
}

// A time to choose is typed in the viewer's zone, and sent in UTC beside it.
function localTimes() {
  for (const input of document.querySelectorAll("input[data-utc]")) {
    if (input.value) {
      const date = new Date(input.value + "Z");
      input.value = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}T${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
    }
    const sent = document.createElement("input");
    sent.type = "hidden";
    sent.name = input.name + "_utc";
    input.form.append(sent);
    const note = () => { sent.value = input.value ? new Date(input.value).toISOString() : ""; };
    input.addEventListener("input", note);
    note();
  }
  for (const zone of document.querySelectorAll("[data-zone]")) {
    zone.textContent = zone.textContent.replace("(UTC)", "(your time)");
  }
}

// What is asked for only with one of several choices is shown only then.
function dependents() {
  for (const select of document.querySelectorAll("select[data-shows]")) {
    const shown = document.querySelector(`[data-shown="${select.dataset.shows}"]`);
    const update = () => { shown.hidden = select.value !== "at"; };
    select.addEventListener("change", update);
    update();
  }
}

function copying() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const input = document.getElementById(button.dataset.copy);
      input.select();
      try {
        await navigator.clipboard.writeText(input.value);
      } catch {
        document.execCommand("copy"); // pages that came over plain HTTP have no other way
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  for (const input of document.querySelectorAll("[data-secret] input")) {
    input.addEventListener("focus", () => input.select());
  }
}

// A page with a secret is seen once: to reload it or to come back to it shows the token's own page. The browser may
// keep a page that was left; the secret in it is not kept.
function onlyOnce() {
  const part = document.querySelector("[data-secret]");
  if (!part) return;
  history.replaceState(null, "", part.dataset.secret);
  addEventListener("pagehide", () => {
    for (const input of part.querySelectorAll("input")) input.value = "";
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

// Numbers that are fetched again and again; and how old they are, once two fetches in a row brought nothing.
function refreshing() {
  for (const part of document.querySelectorAll("[data-refresh]")) {
    const period = Number(part.dataset.refresh) * 1000;
    const notice = document.getElementById(`${part.id}-age`);
    let shown = Date.now(), asked = 0;
    part.addEventListener("htmx:afterSwap", () => {
      shown = Date.now();
      asked = 0;
      notice.hidden = true;
    });
    setInterval(() => {
      if (document.hidden) return;
      notice.hidden = asked < 2;
      notice.querySelector("[data-age]").textContent = `${Math.round((Date.now() - shown) / 1000)} seconds`;
      asked += 1;
      htmx.trigger(part, "refresh");
    }, period);
  }
}

showTimes(document);
localTimes();
dependents();
copying();
onlyOnce();
refreshing();
document.body.addEventListener("htmx:load", (event) => showTimes(event.detail.elt.parentElement || event.detail.elt));
