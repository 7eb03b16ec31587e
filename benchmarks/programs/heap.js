// SPDX-License-Identifier: GPL-2.0-only
// Grow, churn and drop a heap: objects, strings, typed arrays and JSON, so that V8's generations, large
// objects and array buffers all map and unmap memory.
"use strict";

let x = 1;
const random = (n) => {
  x = (Math.imul(x, 1103515245) + 12345) >>> 0;
  return x % n;
};

let checksum = 0;
for (let round = 0; round < 8; round++) {
  const index = new Map();
  for (let i = 0; i < 60000; i++) {
    index.set(`key-${random(1 << 20)}`, { id: i, tags: [random(9), random(9)], text: "x".repeat(random(200)) });
  }
  const text = JSON.stringify([...index.values()]);
  const back = JSON.parse(text);
  back.sort((a, b) => a.text.length - b.text.length || a.id - b.id);
  const buffers = [];
  for (let i = 0; i < 40; i++) {
    const buffer = new Float64Array(1 << (10 + random(9)));
    for (let j = 0; j < buffer.length; j++) buffer[j] = Math.sqrt(j + i);
    buffers.push(buffer);
  }
  checksum += text.length + back[back.length >> 1].id + buffers.reduce((sum, b) => sum + b[b.length - 1], 0);
}
console.log(checksum.toFixed(3));
