// SPDX-License-Identifier: GPL-2.0-only
// Draws the timelines of a page: lanes of threads with calls (upper part) and waits (lower part).
"use strict";
for (const root of document.querySelectorAll(".trace")) {
  const d = JSON.parse(root.querySelector("script").textContent);
  const canvas = root.querySelector("canvas"), told = root.querySelector(".told"), c = canvas.getContext("2d");
  const ROW = 26, AXIS = 24, HUES = [0, 2, 3, 4, 5], PAD = 2;
  const longest = d.waits.map((_, i) => i).sort((a, b) => (d.waits[b][4] - d.waits[b][3]) - (d.waits[a][4] - d.waits[a][3]));
  let from = 0, to = d.end, chosen = -1, rank = -1, width = 0, dragged = null;
  const label = () => (width < 500 ? 64 : 90);
  const x = (t) => label() + (t - from) / (to - from) * (width - label() - PAD);
  const time = (px) => from + (px - label()) / (width - label() - PAD) * (to - from);
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function length(ns) {
    for (const [unit, size] of [["s", 1e9], ["ms", 1e6], ["µs", 1e3]])
      if (Math.abs(ns) >= size) return `${Number((ns / size).toPrecision(4))} ${unit}`;
    return `${Math.round(ns)} ns`;
  }
  function resize() {
    const ratio = window.devicePixelRatio || 1;
    width = canvas.clientWidth;
    const height = d.threads.length * ROW + AXIS;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    draw();
  }
  function axis(height) {
    const span = to - from, most = Math.max(2, Math.floor(width / 130));
    let step = 10 ** Math.floor(Math.log10(span / most));
    for (const m of [1, 2, 5, 10]) if (span / (step * m) <= most) { step *= m; break; }
    c.fillStyle = colour("--dim");
    c.strokeStyle = colour("--rule");
    c.textAlign = "center";
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      const at = Math.round(x(t)) + .5;
      c.beginPath(); c.moveTo(at, 0); c.lineTo(at, height - AXIS); c.stroke();
      if (at < width - 24) c.fillText(length(t), at, height - 8);
    }
  }
  function bars(list, top, high, hue) {
    const drawn = new Map();
    for (const o of list) {
      if (o[4] < from || o[3] > to) continue;
      const a = Math.max(x(o[3]), label()), b = Math.min(x(o[4]), width - PAD), key = o[0] * 64 + hue(o);
      if (b - (drawn.get(key) ?? -9) < .4) continue; // what is narrower than half a pixel is drawn once
      drawn.set(key, b);
      c.fillStyle = palette[hue(o)];
      c.fillRect(a, o[0] * ROW + top, Math.max(b - a, .6), high);
    }
  }
  let palette = [];
  function draw() {
    const height = d.threads.length * ROW + AXIS;
    palette = [0, 1, 2, 3, 4, 5].map((i) => colour(`--c${i}`));
    c.clearRect(0, 0, width, height);
    c.font = "11px system-ui, sans-serif";
    axis(height);
    bars(d.operations, 4, 11, (o) => HUES[o[1] % HUES.length]);
    bars(d.waits, 16, 6, () => 1);
    c.textAlign = "left";
    d.threads.forEach((name, i) => {
      c.fillStyle = colour("--bg");
      c.fillRect(0, i * ROW, label() - 2, ROW);
      c.fillStyle = colour("--fg");
      c.fillText(name.length > 13 ? name.slice(0, 12) + "…" : name, 0, i * ROW + 16, label() - 6);
    });
    if (chosen >= 0) arrow(d.waits[chosen]);
  }
  function arrow(w) {
    c.strokeStyle = c.fillStyle = colour("--fg");
    c.lineWidth = 1.5;
    const a = Math.max(x(w[3]), label()), b = Math.min(x(w[4]), width);
    if (b > a) c.strokeRect(a - 1, w[0] * ROW + 14, b - a + 2, 10);
    for (const [lane, , , , end] of w[5]) {
      if (lane < 0 || end < from || end > to) continue;
      const at = x(end), y0 = lane * ROW + 10, y1 = w[0] * ROW + 19, way = Math.sign(y1 - y0) || 1;
      c.beginPath(); c.moveTo(at, y0); c.lineTo(at, y1); c.stroke();
      c.beginPath(); c.moveTo(at, y1); c.lineTo(at - 4, y1 - 7 * way); c.lineTo(at + 4, y1 - 7 * way); c.fill();
      c.beginPath(); c.arc(at, y0, 3, 0, 7); c.fill();
    }
    c.lineWidth = 1;
  }
  function say(w) {
    const parts = w[5].filter((b) => b[4] > b[3]).map((b) => `${b[0] < 0 && !d.words[b[1]] ? "" : d.words[b[1]] + " in "}${d.words[b[2]]} for ${length(b[4] - b[3])}`);
    const shown = parts.length > 4 ? [...parts.slice(0, 4), `${parts.length - 4} more`] : parts;
    told.textContent = `${d.threads[w[0]]} in ${d.words[w[2]]} waits ${length(w[4] - w[3])} for ${d.words[w[1]]}` +
      (shown.length ? `: ${shown.join(", ")}.` : ".");
  }
  function view(a, b) {
    const span = Math.min(Math.max(b - a, 20), d.end);
    from = Math.min(Math.max((a + b - span) / 2, 0), d.end - span);
    to = from + span;
    draw();
  }
  function zoom(factor, at = (from + to) / 2) { view(at - (at - from) * factor, at + (to - at) * factor); }
  function pan(part) { const by = (to - from) * part; view(from + by, to + by); }
  function step(by) {
    if (!longest.length) return;
    rank = Math.min(Math.max(rank + by, 0), longest.length - 1);
    chosen = longest[rank];
    const w = d.waits[chosen], span = Math.max(w[4] - w[3], 200);
    say(w);
    view(w[3] - span * .7, w[4] + span * .7);
  }
  const acts = {
    in: () => zoom(.5), out: () => zoom(2), left: () => pan(-.3), right: () => pan(.3),
    all: () => { chosen = rank = -1; view(0, d.end); }, next: () => step(1), prev: () => step(-1),
  };
  const keys = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", Home: "all", n: "next", p: "prev" };
  for (const button of root.querySelectorAll("[data-do]")) button.onclick = () => acts[button.dataset.do]();
  canvas.addEventListener("keydown", (e) => {
    if (!keys[e.key] || e.ctrlKey || e.metaKey || e.altKey) return;
    acts[keys[e.key]]();
    e.preventDefault();
  });
  canvas.addEventListener("wheel", (e) => { // with Ctrl, as maps do: a page goes on scrolling
    if (!e.ctrlKey) return;
    zoom(e.deltaY > 0 ? 1.25 : .8, time(e.offsetX));
    e.preventDefault();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (e) => { dragged = [e.offsetX, from, to]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointerup", () => { dragged = null; });
  canvas.addEventListener("pointermove", (e) => {
    if (dragged) {
      const by = (dragged[0] - e.offsetX) / (width - label() - PAD) * (dragged[2] - dragged[1]);
      view(dragged[1] + by, dragged[2] + by);
      return;
    }
    const lane = Math.floor(e.offsetY / ROW), near = (to - from) / width, t = time(e.offsetX);
    const hit = (o) => o[0] === lane && o[3] - near <= t && t <= o[4] + near;
    const wait = e.offsetY % ROW > 14 ? d.waits.findIndex(hit) : -1;
    if (wait >= 0) { chosen = wait; say(d.waits[wait]); draw(); return; }
    const o = d.operations.findLast(hit);
    if (o) told.textContent = `${d.threads[o[0]]}: ${d.names[o[1]]}, ${length(o[4] - o[3])} (${d.words[o[2]]})`;
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new ResizeObserver(() => { if (canvas.clientWidth !== width) resize(); }).observe(canvas);
  resize();
}
