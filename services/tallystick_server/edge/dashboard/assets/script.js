// Every page works without script, in UTC. The script adds local times, copy buttons and automatic refresh.
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

// The viewer enters a time in the local time zone; a hidden field sends it in UTC.
function localTimes() {
  for (const input of document.querySelectorAll("input[data-utc]")) {
    if (input.value) {
      const date = new Date(input.value + "Z");
      input.value = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}T${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
    }
    const utc = document.createElement("input");
    utc.type = "hidden";
    utc.name = input.name + "_utc";
    input.form.append(utc);
    const update = () => { utc.value = input.value ? new Date(input.value).toISOString() : ""; };
    input.addEventListener("input", update);
    update();
  }
  for (const zone of document.querySelectorAll("[data-zone]")) {
    zone.textContent = zone.textContent.replace("(UTC)", "(local time)");
  }
}

// Shows a field only while the option that needs it is selected.
function dependents() {
  for (const select of document.querySelectorAll("select[data-shows]")) {
    const dependent = document.querySelector(`[data-shown="${select.dataset.shows}"]`);
    const update = () => { dependent.hidden = select.value !== "at"; };
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
        document.execCommand("copy"); // without HTTPS the clipboard API is not available
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  for (const input of document.querySelectorAll("[data-secret] input")) {
    input.addEventListener("focus", () => input.select());
  }
}

// A secret is shown once: reloading the page or returning to it shows the token's page. The browser may cache a page that
// was left, so the secret is removed from it.
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

// Refreshes the metrics, and shows their age after two failed refreshes in a row.
function refreshing() {
  for (const part of document.querySelectorAll("[data-refresh]")) {
    const period = Number(part.dataset.refresh) * 1000;
    const notice = document.getElementById(`${part.id}-age`);
    let updated = Date.now(), pending = 0;
    part.addEventListener("htmx:afterSwap", () => {
      updated = Date.now();
      pending = 0;
      notice.hidden = true;
    });
    setInterval(() => {
      if (document.hidden) return;
      notice.hidden = pending < 2;
      notice.querySelector("[data-age]").textContent = `${Math.round((Date.now() - updated) / 1000)} seconds`;
      pending += 1;
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
