"use strict";
// Replaces the parts of a page that have changed. A page that is not visible has no connection.
(() => {
  const place = document.querySelector("[data-events]");
  const note = document.getElementById("connection");
  if (!place || !note) return;
  let source = null;

  const show = (text) => {
    note.textContent = text;
    note.hidden = text === "";
  };

  const replace = (id, html) => {
    const part = document.getElementById(id);
    if (!part) return;
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    part.innerHTML = html;
    if (focused) document.getElementById(focused)?.focus();
  };

  const open = () => {
    if (source) return;
    source = new EventSource(place.dataset.events);
    source.addEventListener("open", () => show(""));
    source.addEventListener("parts", (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) replace(id, html);
      document.documentElement.dataset.live = "on";
    });
    source.addEventListener("error", () => {
      delete document.documentElement.dataset.live;
      show(source.readyState === EventSource.CLOSED
        ? "The session has ended. Run quarry web again, and open its new link."
        : "No connection to quarry web. This page shows what was last known.");
    });
  };

  const close = () => {
    source?.close();
    source = null;
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
})();
