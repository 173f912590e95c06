"use strict";
(function () {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const unfold = document.getElementById("unfold");
  const folded = () => document.querySelectorAll("main details");

  function isDark() {
    const chosen = root.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function label() {
    theme.textContent = isDark() ? "Light" : "Dark";
  }
  function toggle() {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
  }
  // What a link leads to may be in a closed part.
  function reveal() {
    let at = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!at) return;
    const target = at;
    for (; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }
  function headings() {
    return [...document.querySelectorAll("main h2, main h3, main h4")]
      .map((heading) => heading.closest("summary") || heading)
      .filter((heading) => heading.offsetParent !== null);
  }
  let current = -1;
  function go(step) {
    const found = headings();
    const at = found.indexOf(document.activeElement);
    current = Math.min(Math.max((at < 0 ? current : at) + step, 0), found.length - 1);
    const heading = found[current];
    if (!heading) return;
    if (heading.tagName !== "SUMMARY") heading.tabIndex = -1;
    heading.focus();
    heading.scrollIntoView({ block: "start" });
  }
  function fold() {
    const part = document.activeElement && document.activeElement.closest("main details");
    if (part) part.open = !part.open;
  }
  const keys = {
    j: () => go(1),
    k: () => go(-1),
    o: fold,
    t: toggle,
    "/": () => document.querySelector("nav a").focus(),
  };
  theme.addEventListener("click", toggle);
  unfold.addEventListener("click", function () {
    const open = unfold.textContent === "Open all";
    for (const part of folded()) part.open = open;
    unfold.textContent = open ? "Close all" : "Open all";
  });
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener("hashchange", reveal);
  addEventListener("beforeprint", function () {
    for (const part of folded()) part.open = true;
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  for (const id of ["theme", "unfold", "keys"]) document.getElementById(id).hidden = false;
  if (matchMedia("(max-width: 60rem)").matches) document.getElementById("contents").open = false;
  label();
  reveal();
})();
