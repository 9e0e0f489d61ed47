// What the pages do beyond links and forms. Everything works without it, except the live numbers and the keys.
"use strict";

(() => {
  const base = document.body.dataset.base;
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // The numbers of the overview. The stream is closed while nobody sees the tab.
  const live = one("#live");
  if (live) {
    const state = one("#live-state");
    let source = null;
    let retry = 0;
    const show = (name) => {
      state.hidden = false;
      state.classList.toggle("paused", name === "paused");
      one(".live-text", state).textContent = state.dataset[name];
    };
    // Only what has changed is replaced, and never what has the focus, so that keyboards and screen readers keep their place.
    const renew = (html) => {
      const fresh = new DOMParser().parseFromString(html, "text/html");
      for (const part of all("[data-part]", live)) {
        const next = one(`[data-part="${CSS.escape(part.dataset.part)}"]`, fresh);
        if (next && next.outerHTML !== part.outerHTML && !part.contains(document.activeElement)) {
          part.replaceWith(document.adoptNode(next));
        }
      }
    };
    const stop = () => {
      clearTimeout(retry);
      if (source) source.close();
      source = null;
      show("paused");
    };
    const start = () => {
      if (source || document.hidden) return;
      source = new EventSource(live.dataset.stream);
      source.addEventListener("open", () => show("live"));
      source.addEventListener("overview", (event) => renew(event.data));
      source.addEventListener("error", () => {
        if (source && source.readyState === EventSource.CLOSED) {
          stop();
          retry = setTimeout(start, 10000);
        }
      });
    };
    document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
    start();
  }

  // Times in the browser's own zone, when one points at them.
  const zone = new Intl.DateTimeFormat(document.documentElement.lang, { dateStyle: "medium", timeStyle: "medium" });
  for (const time of all("time[datetime]")) {
    time.title = `${time.title}\n${zone.format(new Date(time.dateTime))}`;
  }

  // Selecting messages.
  const boxes = all('.lines input[name="id"]');
  if (boxes.length) {
    const everything = one("#select-all");
    const count = one("#selected-count");
    const renew = () => {
      const chosen = boxes.filter((box) => box.checked).length;
      count.textContent = chosen;
      everything.checked = chosen === boxes.length;
      everything.indeterminate = chosen > 0 && chosen < boxes.length;
      for (const box of boxes) box.closest("tr").classList.toggle("checked", box.checked);
      for (const button of all("[data-needs-selection]")) button.disabled = chosen === 0;
    };
    everything.addEventListener("change", () => {
      for (const box of boxes) box.checked = everything.checked;
      renew();
    });
    let last = null;
    for (const box of boxes) {
      box.addEventListener("click", (event) => {
        if (event.shiftKey && last) {
          const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
          for (const between of boxes.slice(from, to + 1)) between.checked = box.checked;
        }
        last = box;
        renew();
      });
      box.addEventListener("change", renew);
    }
    renew();
    window.addEventListener("pageshow", renew);
  }

  // Copying.
  for (const button of all("[data-copy]")) {
    if (!navigator.clipboard) continue;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      const label = one("span", button);
      const before = label.textContent;
      label.textContent = button.dataset.copied;
      setTimeout(() => (label.textContent = before), 1500);
    });
  }

  // A second click on the button of a form does nothing.
  for (const form of all('form[method="post"]')) {
    form.addEventListener("submit", (event) => {
      if (form.dataset.sent) event.preventDefault();
      form.dataset.sent = "yes";
    });
  }
  window.addEventListener("pageshow", () => all("form[data-sent]").forEach((form) => delete form.dataset.sent));

  // Keys.
  const rows = all(".lines tbody tr[data-href]");
  let current = -1;
  const move = (step) => {
    if (!rows.length) return;
    rows[current]?.classList.remove("current");
    current = Math.min(Math.max(current + step, 0), rows.length - 1);
    rows[current].classList.add("current");
    rows[current].scrollIntoView({ block: "nearest" });
    one("a.topic", rows[current])?.focus({ preventScroll: true });
  };
  const places = { o: base ? "" : "/", p: "/published", r: "/received", f: "/parked" };
  let going = false;
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape" && typing) return typing.blur();
    if (typing || event.ctrlKey || event.metaKey || event.altKey || one("dialog[open]")) return;
    if (going) {
      going = false;
      if (event.key in places) location.href = base + places[event.key];
      return;
    }
    if (event.key === "/") {
      const search = one("#q");
      if (search) { event.preventDefault(); search.focus(); }
    } else if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "x" && rows[current]) one('input[name="id"]', rows[current])?.click();
    else if (event.key === "g") { going = true; setTimeout(() => (going = false), 1200); }
    else if (event.key === "?") one("#help")?.showModal();
  });
})();
