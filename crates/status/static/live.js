// Live parts of the pages. Everything works without it; nothing here puts text into a page as HTML of its own:
// figures go in as text, and sections come whole from the server, as it renders them for everybody.
"use strict";
(() => {
  const sign = document.getElementById("live");
  const say = (text) => {
    if (sign) {
      sign.textContent = text;
      sign.hidden = false;
    }
  };

  // Many who look at the same moment do not all ask at the same moment.
  let waiting = null;
  let stale = false;
  const refresh = (soon) => {
    if (waiting || document.hidden) {
      stale = stale || document.hidden;
      return;
    }
    waiting = setTimeout(renew, (soon ? 150 : 400) + Math.random() * 600);
  };

  async function renew() {
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      const kind = answer.headers.get("content-type") || "";
      if (!answer.ok || !kind.startsWith("text/html")) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of document.querySelectorAll("[data-live][id]")) {
        const renewed = page.getElementById(old.id);
        if (!renewed || old.innerHTML === renewed.innerHTML) continue;
        // Who reads or types there is not disturbed.
        if (old.querySelector("details[open], :focus:is(input, select, textarea, button)")) continue;
        const focused = old.contains(document.activeElement) ? document.activeElement : null;
        const address = focused && focused.getAttribute("href");
        old.replaceChildren(...renewed.childNodes);
        if (address) {
          const again = [...old.querySelectorAll("a")].find((link) => link.getAttribute("href") === address);
          if (again) again.focus({ preventScroll: true });
        }
      }
    } catch {
      // The connection of the events tells that as well.
    } finally {
      waiting = null;
    }
  }

  function progress(told) {
    for (const place of document.querySelectorAll(`[data-progress="${Number(told.job)}"]`)) {
      const bar = place.querySelector("progress");
      const percent = told.progress.percent;
      if (bar && percent !== null) bar.value = percent;
      const figures = place.querySelector(".figures");
      if (figures) figures.textContent = (percent === null ? "" : `${percent} % · `) + told.progress.text;
      const path = place.querySelector(".path");
      if (path) path.textContent = told.progress.path;
    }
  }

  const live = document.querySelector("[data-live]");
  if (!live || !window.EventSource) return;
  const events = new EventSource("/api/v1/events");
  events.addEventListener("open", () => say("Live."));
  events.addEventListener("error", () => say("The live connection is lost; it is tried again."));
  events.addEventListener("progress", (event) => progress(JSON.parse(event.data)));
  for (const name of ["job", "repository", "schedules", "borgcubed", "resync"]) {
    events.addEventListener(name, () => refresh(name === "job"));
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && stale) {
      stale = false;
      refresh(true);
    }
  });
  window.addEventListener("pagehide", () => events.close());
})();
