"use strict";

// The page of one task. htmx asks for what has changed; here, what says the same stays as it is, and what was opened or
// scrolled stays so. Then the times that pass, and what is copied.
(() => {
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  const far = (seconds) => {
    const [size, unit] = UNITS.find((each) => seconds >= each[0]) || UNITS[3];
    return `${Math.floor(seconds / size)} ${unit}`;
  };

  const tell = () => {
    for (const each of document.querySelectorAll("[data-ago]")) {
      const seconds = (Date.now() - Date.parse(each.dataset.ago)) / 1000;
      each.textContent = seconds < 0 ? `in ${far(-seconds)}` : `${far(seconds)} ago`;
    }
    for (const each of document.querySelectorAll("[data-since]")) {
      each.textContent = far(Math.max(0, (Date.now() - Date.parse(each.dataset.since)) / 1000));
    }
  };

  // A part without what differs though it says the same.
  const said = (part) => {
    const copy = part.cloneNode(true);
    copy.querySelectorAll("[data-ago], [data-since]").forEach((each) => (each.textContent = ""));
    copy.querySelectorAll("details").forEach((each) => each.removeAttribute("open"));
    copy.querySelectorAll(".task-acts").forEach((each) => (each.textContent = each.dataset.acts));
    copy.removeAttribute("hx-swap-oob");
    copy.removeAttribute("open");
    copy.removeAttribute("class");
    return copy;
  };

  let scrolled = new Map();

  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const [before, after] = [event.detail.target, event.detail.fragment];
    const part = after.id === before.id ? after : after.querySelector(`[id="${before.id}"]`);
    if (before.id !== "task-live" && said(before).isEqualNode(said(part))) {
      event.detail.shouldSwap = false;
      return;
    }
    for (const each of [before, ...before.querySelectorAll("details[id]")]) {
      const same = part.id === each.id ? part : part.querySelector(`[id="${each.id}"]`);
      if (same && same.matches("details")) same.open = each.open;
    }
    for (const each of before.querySelectorAll("pre[id]")) {
      const end = each.scrollTop > 0 && each.scrollTop + each.clientHeight >= each.scrollHeight - 4;
      scrolled.set(each.id, end ? Infinity : each.scrollTop);
    }
  });

  document.addEventListener("htmx:oobAfterSwap", () => {
    for (const [id, top] of scrolled) {
      const text = document.getElementById(id);
      if (text) text.scrollTop = Math.min(top, text.scrollHeight);
    }
    scrolled = new Map();
  });

  // Whoever was logged out meanwhile is asked to log in, not left with a page that has stopped.
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    const address = event.detail.xhr.responseURL;
    if (address && !new URL(address).pathname.startsWith(event.detail.requestConfig.path.split("?")[0])) {
      event.preventDefault();
      location.reload();
    }
  });

  const copy = async (text) => {
    if (navigator.clipboard) return navigator.clipboard.writeText(text);
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy-text], [data-copy-of]");
    if (!button) return;
    const { copyText, copyOf } = button.dataset;
    await copy(copyText ?? document.getElementById(copyOf).textContent);
    const icon = button.firstElementChild;
    icon.textContent = "check";
    setTimeout(() => (icon.textContent = "content_copy"), 1500);
  });

  setInterval(tell, 1000);
})();
