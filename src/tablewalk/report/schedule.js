// SPDX-License-Identifier: GPL-2.0-only
const steps = [...document.querySelectorAll(".step")];
let at = -1;
function show(i) {
  if (at >= 0) steps[at].classList.remove("shown");
  at = Math.max(0, Math.min(steps.length - 1, i));
  steps[at].classList.add("shown");
  history.replaceState(null, "", "#" + (at + 1));
}
const go = { first: () => 0, back: () => at - 1, on: () => at + 1, last: () => steps.length - 1 };
const keys = { ArrowLeft: "back", ArrowRight: "on", Home: "first", End: "last" };
for (const name of Object.keys(go)) document.getElementById(name).onclick = () => show(go[name]());
document.addEventListener("keydown", (e) => {
  if (keys[e.key] && !e.ctrlKey && !e.metaKey && !e.altKey) { show(go[keys[e.key]]()); e.preventDefault(); }
});
document.body.classList.add("stepped");
show((parseInt(location.hash.slice(1)) || 1) - 1);
