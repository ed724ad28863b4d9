// The pages' only script: they work without it. It refreshes what changes by itself, takes `/` to
// the search, and chooses all rows of a list at once.
"use strict";

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const isWriting = target.matches("input, textarea, select") || target.isContentEditable;
  if (event.key !== "/" || isWriting || event.ctrlKey || event.metaKey || event.altKey) return;
  const find = document.getElementById("find");
  if (!find) return;
  event.preventDefault();
  find.focus();
  find.select();
});

// The menu is one line on a phone: the page that is open is moved into view.
const here = document.querySelector("nav [aria-current]");
if (here) {
  const strip = here.closest("ul");
  strip.scrollLeft = here.offsetLeft - strip.clientWidth / 2;
}

// A checkbox above a list of choices chooses all of them.
for (const cell of document.querySelectorAll("form.select th.choose")) {
  const boxes = () => cell.closest("form").querySelectorAll("td input[type=checkbox]");
  const all = document.createElement("input");
  all.type = "checkbox";
  all.setAttribute("aria-label", cell.textContent);
  all.addEventListener("change", () => {
    for (const box of boxes()) box.checked = all.checked;
  });
  cell.replaceChildren(all);
}

const main = document.getElementById("main");
const seconds = Number(main && main.dataset.refresh);

// The reader's place: what is open, and what has the focus.
const nameOf = (element) =>
  element.getAttribute("aria-label") || (element.getAttribute("href") || "") + element.textContent;

function isBusy() {
  const focused = document.activeElement;
  const isWriting = main.contains(focused) && focused.matches("input, textarea, select");
  const selection = document.getSelection();
  return document.hidden || isWriting || (selection && !selection.isCollapsed);
}

async function refresh() {
  if (isBusy()) return;
  let answer;
  try {
    answer = await fetch(location.pathname + location.search, { redirect: "manual" });
  } catch {
    return; // The service restarts: the next time.
  }
  if (answer.type === "opaqueredirect") {
    location.reload(); // The session has ended.
    return;
  }
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.getElementById("main");
  if (!next || isBusy()) return;
  const keys = (root) =>
    new Map([...root.querySelectorAll("details")].map((one, at) => [nameOf(one.firstElementChild) + at, one]));
  const later = keys(next);
  for (const [key, details] of keys(main)) {
    if (details.open && later.has(key)) later.get(key).open = true;
  }
  const focused = main.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  const top = window.scrollY;
  // Notices belong to the action before.
  for (const notice of next.querySelectorAll("[role=status]")) notice.remove();
  main.replaceChildren(...next.childNodes);
  if (focused !== null) {
    const again = [...main.querySelectorAll("a, button, summary")].find((one) => nameOf(one) === focused);
    if (again) again.focus({ preventScroll: true });
  }
  window.scrollTo(window.scrollX, top);
}

if (seconds > 0) setInterval(refresh, seconds * 1000);
