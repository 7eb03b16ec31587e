// SPDX-License-Identifier: GPL-2.0-only
// Shows one step of a counterexample at a time.
"use strict";
for (const root of document.querySelectorAll(".stepper")) {
  const steps = [...root.querySelectorAll(".step")], range = root.querySelector("input"), whole = "whole" in root.dataset;
  let at = -1;
  function show(i) {
    if (at >= 0) steps[at].classList.remove("shown");
    at = Math.max(0, Math.min(steps.length - 1, i));
    steps[at].classList.add("shown");
    range.value = at + 1;
    if (whole) history.replaceState(null, "", "#" + (at + 1));
  }
  const go = { first: () => 0, back: () => at - 1, on: () => at + 1, last: () => steps.length - 1 };
  const keys = { ArrowLeft: "back", ArrowRight: "on", Home: "first", End: "last" };
  for (const button of root.querySelectorAll("[data-do]")) button.onclick = () => show(go[button.dataset.do]());
  range.oninput = () => show(range.value - 1);
  (whole ? document : root).addEventListener("keydown", (e) => {
    if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
    show(go[keys[e.key]]());
    e.preventDefault();
  });
  root.classList.add("stepped");
  show((whole && parseInt(location.hash.slice(1)) || 1) - 1);
}
